// A browser without a window, driven over the DevTools protocol through two pipes: no port, no package, ends with this process.
// https://chromedevtools.github.io/devtools-protocol/

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe"];

export class Browser {
  #child; #profile; #next = 1; #waiting = new Map(); #listeners = []; #rest = Buffer.alloc(0);

  constructor(program) {
    this.#profile = mkdtempSync(join(tmpdir(), "mirror-browser-"));
    // Descriptor 3 is read by the browser, 4 is written by it.
    this.#child = spawn(program, [...FLAGS, `--user-data-dir=${this.#profile}`, "about:blank"], { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
    this.#child.stdio[4].on("data", (bytes) => this.#hear(bytes));
    this.#child.on("exit", () => this.#waiting.forEach(({ reject }) => reject(new Error("the browser has ended"))));
  }

  #hear(bytes) {
    const parts = Buffer.concat([this.#rest, bytes]).toString("binary").split("\0");
    this.#rest = Buffer.from(parts.pop(), "binary");
    for (const part of parts) {
      const message = JSON.parse(Buffer.from(part, "binary").toString());
      const waiting = this.#waiting.get(message.id);
      this.#waiting.delete(message.id);
      if (!waiting) this.#listeners.forEach((listener) => listener(message));
      else if (message.error) waiting.reject(new Error(JSON.stringify(message.error)));
      else waiting.resolve(message.result);
    }
  }

  send(method, params = {}, sessionId = undefined) {
    const id = this.#next++;
    this.#child.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }

  on(listener) {
    this.#listeners.push(listener);
  }

  async close() {
    const ended = new Promise((resolve) => this.#child.once("exit", resolve));
    this.send("Browser.close").catch(() => {});
    setTimeout(() => this.#child.kill("SIGKILL"), 5000).unref();
    await ended;
    rmSync(this.#profile, { recursive: true, force: true, maxRetries: 10 });
  }
}

export class Page {
  requests = [];
  complaints = [];

  static async open(browser, url) {
    const page = new Page();
    page.browser = browser;
    const { targetId } = await browser.send("Target.createTarget", { url: "about:blank" });
    ({ sessionId: page.session } = await browser.send("Target.attachToTarget", { targetId, flatten: true }));
    browser.on((message) => message.sessionId === page.session && page.#hear(message));
    for (const domain of ["Page", "Runtime", "Network", "Log"]) await page.send(`${domain}.enable`);
    await page.send("Emulation.setDeviceMetricsOverride", { width: 1000, height: 1000, deviceScaleFactor: 1, mobile: false });
    await page.send("Page.navigate", { url });
    return page;
  }

  #hear({ method, params }) {
    if (method === "Network.requestWillBeSent") this.requests.push(params.request.url);
    if (method === "Log.entryAdded") this.complaints.push(params.entry.text);
    if (method === "Runtime.exceptionThrown") this.complaints.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
  }

  send(method, params) {
    return this.browser.send(method, params, this.session);
  }

  async evaluate(expression) {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  // Waits until the expression is true of the page.
  async until(expression, patienceMs = 20000) {
    const begun = Date.now();
    for (;;) {
      const value = await this.evaluate(expression);
      if (value) return value;
      if (Date.now() - begun > patienceMs) throw new Error(`it did not come to that: ${expression}\n${await this.evaluate("document.body.innerText")}`);
      await this.evaluate("new Promise((resolve) => requestAnimationFrame(resolve))");
    }
  }

  // A mouse, where the element is: what lies on top of it gets the click.
  async click(selector) {
    const { x, y } = await this.evaluate(`(() => {
      const node = document.querySelector(${JSON.stringify(selector)});
      node.scrollIntoView({ block: "center" });
      const box = node.getBoundingClientRect();
      return { x: box.x + box.width / 2, y: box.y + box.height / 2 };
    })()`);
    for (const type of ["mousePressed", "mouseReleased"]) await this.send("Input.dispatchMouseEvent", { type, x, y, button: "left", clickCount: 1 });
  }

  async screenshot() {
    const { cssContentSize } = await this.send("Page.getLayoutMetrics");
    const clip = { x: 0, y: 0, width: cssContentSize.width, height: cssContentSize.height, scale: 1 };
    return Buffer.from((await this.send("Page.captureScreenshot", { clip, captureBeyondViewport: true })).data, "base64");
  }
}
