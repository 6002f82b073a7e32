// The status page in a real browser: a live peer is seen, a real conflict is decided by a click, and pages of others can do nothing.
//
//   node tests/browser/status_page.mjs BIN_DIR [PICTURES_DIR]
//
// BIN_DIR holds mirror and mirord. Ends with 0 when all is as it should be, with 77 when there is no browser (CHROMIUM names one).

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { accessSync, constants, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import { delimiter, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { Browser, Page } from "./devtools.mjs";

const bin = resolve(process.argv[2] ?? "target/debug");
const pictures = process.argv[3];
const dir = mkdtempSync(join(tmpdir(), "mirror-page-"));
const running = [];

function chromium() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  const places = (process.env.PATH ?? "").split(delimiter).flatMap((path) => ["chromium", "chromium-browser", "google-chrome"].map((name) => join(path, name)));
  return places.find((place) => { try { accessSync(place, constants.X_OK); return true; } catch { return false; } });
}

class Device {
  constructor(name) {
    const others = Object.entries(process.env).filter(([key]) => !key.startsWith("MIRROR_"));
    this.env = { ...Object.fromEntries(others), MIRROR_HOME: join(dir, `home-${name}`) };
    this.vault = join(dir, name);
  }

  mirror(args, input = "") {
    return execFileSync(join(bin, "mirror"), args, { env: this.env, cwd: dir, input, stdio: ["pipe", "pipe", "pipe"] }).toString();
  }

  put(key, value) {
    this.mirror(["-V", this.vault, "put", key], value);
  }

  // Starts the daemon, and waits until it is ready. What it has printed until then, by type.
  async mirord(...flags) {
    const child = spawn(join(bin, "mirord"), ["-V", this.vault, "--json", "--quiet", "--no-discovery", ...flags], { env: this.env, stdio: ["ignore", "pipe", "inherit"] });
    running.push(child);
    const said = {};
    for await (const line of createInterface({ input: child.stdout })) {
      const record = JSON.parse(line);
      said[record.type] = record;
      if (record.type === "ready") return said;
    }
    throw new Error("mirord has ended");
  }
}

// A request as a program makes it that is no browser.
function request(url, options, body) {
  return new Promise((done, failed) => {
    const asked = http.request(url, options, (answer) => {
      let text = "";
      answer.on("data", (part) => { text += part; }).on("end", () => done({ status: answer.statusCode, headers: answer.headers, text }));
    });
    asked.on("error", failed).end(body);
  });
}

// Two replicas that changed one key without knowing of each other, each with a daemon.
async function world() {
  const [a, b] = [new Device("studio"), new Device("laptop")];
  a.mirror(["init", a.vault, "--no-passphrase", "--no-recovery-kit"]);
  for (let n = 0; n < 20; n += 1) a.put(`photos/2026/${n}.raw`, `${n}`.repeat(1000 * n + 1));
  a.put("notes/plan.txt", "first");
  const { listening, ready } = await a.mirord("--listen", "127.0.0.1:0", "--ui", "127.0.0.1:0");
  const invite = ["-V", a.vault, "--json", "invite", "--addr", listening.tcp, "--addr", listening.quic];
  const { ticket } = JSON.parse(a.mirror(invite));
  b.mirror(["clone", ticket, b.vault]);
  a.put("notes/plan.txt", "what the studio wrote");
  b.put("notes/plan.txt", "what the laptop wrote, later");
  b.put("<img src=x onerror=alert(1)>", "a name that would like to be markup");
  await b.mirord("--no-listen");
  return { a, b, ui: ready.ui };
}

async function seesAPeerAndDecidesAConflict(browser, { a, b, ui }) {
  const page = await Page.open(browser, ui);
  await page.until(`document.querySelector('.peer .pill.good')?.textContent === "connected"`);
  await page.until(`document.querySelectorAll(".conflict button").length === 2`);
  const text = await page.evaluate("document.body.innerText");
  for (const word of ["notes/plan.txt", "this device", "stands now", "21 B", "28 B"]) assert.ok(text.includes(word), `${word} is not in\n${text}`);
  const names = await page.evaluate(`[...document.querySelectorAll("button")].map((button) => button.textContent)`);
  assert.ok(names.every((name) => /^Keep this version of notes\/plan.txt by .+/.test(name)), names.join());
  await page.until(`document.querySelector("polyline").points.numberOfItems > 2`);
  if (pictures) {
    mkdirSync(pictures, { recursive: true });
    for (const scheme of ["light", "dark"]) {
      await page.send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
      writeFileSync(join(pictures, `status-${scheme}.png`), await page.screenshot());
    }
    await page.send("Emulation.setEmulatedMedia", { features: [] });
  }
  // What lost by the rule is what the user wants.
  const losing = await page.evaluate(`(() => {
    const item = [...document.querySelectorAll(".conflict li")].find((item) => !item.innerText.includes("stands now"));
    return { event: item.querySelector("button").dataset.event, text: item.innerText };
  })()`);
  await page.click(`button[data-event="${losing.event}"]`);
  await page.until(`!document.querySelector(".conflict")`);
  assert.match(await page.evaluate(`document.getElementById("said").textContent`), /^Decided: notes\/plan.txt/);
  await page.until(`document.getElementById("overall").textContent === "everything is the same"`);
  const wanted = losing.text.includes("21 B") ? "what the studio wrote" : "what the laptop wrote, later";
  for (const device of [a, b]) {
    assert.equal(device.mirror(["-V", device.vault, "get", "notes/plan.txt"]), wanted);
    assert.equal(device.mirror(["-V", device.vault, "--json", "conflicts"]), "");
  }
  if (pictures) writeFileSync(join(pictures, "status-decided.png"), await page.screenshot());
  assert.deepEqual(page.complaints, []);
  const outside = page.requests.filter((url) => !url.startsWith(ui) && !url.startsWith("data:"));
  assert.deepEqual(outside, [], "the page loads nothing from anywhere else");
}

async function othersCanDoNothing(browser, { a, ui }) {
  const page = await request(ui, {});
  assert.equal(page.status, 200);
  const policy = page.headers["content-security-policy"];
  for (const rule of ["default-src 'none'", "script-src 'nonce-", "frame-ancestors 'none'", "form-action 'none'"]) assert.ok(policy.includes(rule), policy);
  const again = await request(ui, {});
  assert.notEqual(policy, again.headers["content-security-policy"], "each answer has a nonce of its own");
  const token = page.text.match(/name="token" content="([0-9a-f]{64})"/)[1];
  const rebound = await request(ui, { headers: { host: `attacker.example:${new URL(ui).port}` } });
  assert.equal(rebound.status, 403);
  assert.ok(!rebound.text.includes(token));
  assert.equal((await request(`${ui}api/state`, {})).status, 403, "without the token");
  const post = { method: "POST", headers: { "content-type": "application/json", "x-mirror-token": token } };
  assert.equal((await request(`${ui}api/resolve`, post, "{}")).status, 403, "without an origin");
  const foreign = { ...post, headers: { ...post.headers, origin: "http://attacker.example" } };
  assert.equal((await request(`${ui}api/resolve`, foreign, "{}")).status, 403, "of another origin");
  const own = { ...post, headers: { ...post.headers, origin: ui.replace(/\/$/, "") } };
  // One byte more than is taken: of a longer body the rest would still be on its way when the answer closes the connection.
  assert.equal((await request(`${ui}api/resolve`, own, "x".repeat(64 * 1024 + 1))).status, 413, "too long");

  // A page of somebody else, in the same browser: it reads nothing, changes nothing, and cannot show the page in a frame.
  const attacker = http.createServer((_, answer) => answer.setHeader("content-type", "text/html").end("<title>other</title>")).listen(0, "127.0.0.1");
  await new Promise((listening) => attacker.once("listening", listening));
  try {
    const other = await Page.open(browser, `http://127.0.0.1:${attacker.address().port}/`);
    await other.until(`document.title === "other"`);
    const tries = await other.evaluate(`(async () => {
      const read = await fetch("${ui}").then((answer) => answer.text()).catch(() => "nothing");
      const state = await fetch("${ui}api/state", { headers: { "x-mirror-token": "${token}" } }).then((answer) => answer.text()).catch(() => "nothing");
      const blind = await fetch("${ui}api/state", { mode: "no-cors" }).then(() => "nothing").catch(() => "nothing");
      const posted = await fetch("${ui}api/resolve", { method: "POST", headers: { "content-type": "application/json", "x-mirror-token": "${token}" }, body: "{}" }).then((answer) => answer.text()).catch(() => "nothing");
      return [read, state, blind, posted];
    })()`);
    assert.deepEqual(tries, ["nothing", "nothing", "nothing", "nothing"]);
  } finally {
    attacker.close();
  }
  assert.equal(JSON.parse(a.mirror(["--json", "daemon", "status"])).type, "daemon");
}

async function saysWhenTheDaemonIsGone(browser, { a, ui }) {
  const page = await Page.open(browser, ui);
  await page.until(`document.querySelector(".peer")`);
  a.mirror(["daemon", "stop"]);
  await page.until(`document.getElementById("overall").textContent === "mirord does not answer"`);
  assert.ok(await page.evaluate(`!!document.querySelector(".peer")`), "what was known stays to be seen");
}

const program = chromium();
if (!program) {
  console.error("there is no chromium: set CHROMIUM");
  process.exit(77);
}
const browser = new Browser(program);
try {
  const made = await world();
  for (const check of [seesAPeerAndDecidesAConflict, othersCanDoNothing, saysWhenTheDaemonIsGone]) {
    await check(browser, made);
    console.log(`ok: ${check.name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`)}`);
  }
} finally {
  await browser.close();
  for (const child of running.filter((child) => child.exitCode === null)) child.kill("SIGTERM");
  await Promise.all(running.map((child) => child.exitCode ?? new Promise((ended) => child.once("exit", ended))));
  rmSync(dir, { recursive: true, force: true });
}
