#!/usr/bin/env python3
"""Known answers for what is derived, sealed and proved, computed without any code of this project.

Written from docs/specs/vault-format.md and docs/specs/mirror-protocol.md with the packages `blake3` and `cryptography`; the tests of the engine read
what this prints. Format 1 does not change: run this to check (`make.py --check`), not to make the tests pass.
"""

import json
import pathlib
import sys

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

HERE = pathlib.Path(__file__).parent
VAULT, MASTER, EARLIER = bytes([7] * 32), bytes([1] * 32), bytes([2] * 32)
ZERO_NONCE = bytes(12)
KIB = 1024


def derive(purpose: str, material: bytes, length: int = 32) -> bytes:
    return blake3(material, derive_key_context=f"mirror 2026-11 v1 {purpose}").digest(length=length)


def keyed(key: bytes, data: bytes, length: int = 32) -> bytes:
    return blake3(data, key=key).digest(length=length)


def sealed(key: bytes, plaintext: bytes, associated: bytes = b"") -> bytes:
    return AESGCM(key).encrypt(ZERO_NONCE, plaintext, associated)


def raw(public) -> bytes:
    return public.public_bytes(Encoding.Raw, PublicFormat.Raw)


def shown(value):
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: shown(part) for name, part in value.items()}
    return [shown(part) for part in value] if isinstance(value, list) else value


# CBOR, the little of it that the formats use: shortest heads, definite lengths.


def head(major: int, number: int) -> bytes:
    for width, code in ((1, 24), (2, 25), (4, 26), (8, 27)):
        if number < 24:
            return bytes([major << 5 | number])
        if number < 1 << (8 * width):
            return bytes([major << 5 | code]) + number.to_bytes(width, "big")
    raise ValueError(number)


def cbor(value) -> bytes:
    if value is None:
        return b"\xf6"
    if isinstance(value, int):
        return head(0, value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, dict):
        return head(5, len(value)) + b"".join(cbor(name) + cbor(part) for name, part in value.items())
    return head(4, len(value)) + b"".join(cbor(part) for part in value)


# Sealed records.


def stored_frame(plaintext: bytes) -> bytes:
    """A zstd frame (RFC 8878) that compresses nothing: one raw block, with the content's size. What another compressor might make."""
    size = len(plaintext)
    return b"\x28\xb5\x2f\xfd\xa0" + size.to_bytes(4, "little") + (1 | size << 3).to_bytes(3, "little") + plaintext


def repeated_frame(byte: bytes, size: int) -> bytes:
    """A zstd frame of one block that says: this byte so many times."""
    return b"\x28\xb5\x2f\xfd\xa0" + size.to_bytes(4, "little") + (1 | 1 << 1 | size << 3).to_bytes(3, "little") + byte


def record(kind: int, epoch: int, plaintext: bytes, body: bytes | None = None, context: bytes = b"") -> dict:
    material = MASTER + VAULT + epoch.to_bytes(4, "little")
    pid = keyed(derive("plaintext id", material), plaintext)
    codec, body, body_hash = (0, plaintext, pid) if body is None else (1, body, keyed(derive("body hash", material), body))
    header = bytes([kind, 1, codec, 0]) + epoch.to_bytes(4, "little") + len(body).to_bytes(4, "little") + bytes(4)
    siv = keyed(derive("siv", material), header + body_hash + context)
    key = keyed(derive("encryption", material), siv + b"\x01")
    whole = header + siv + sealed(key, body, header + siv + context)
    return {"kind": kind, "epoch": epoch, "plaintext": plaintext, "context": context, "plaintext_id": pid, "record": whole,
            "chunk": blake3(whole).digest()}


def seal_vectors() -> dict:
    text = b"the same plaintext, whoever compressed it " * 20
    place = bytes([9] * 32) + (5).to_bytes(8, "little")
    return {
        "master": MASTER,
        "vault": VAULT,
        "gear_key": derive("gear", MASTER + VAULT + (1).to_bytes(4, "little")),
        "records": [record(1, 1, b""), record(1, 1, b"abc"), record(2, 1, b"abc"), record(1, 7, b"abc"), record(1, 1, bytes(range(256)) * 4),
                    record(3, 1, b"body", context=place)],
        "compressed": [record(1, 1, text, stored_frame(text)), record(1, 1, b"a" * 1000, repeated_frame(b"a", 1000)),
                       record(3, 1, b"a" * 1000, repeated_frame(b"a", 1000), place)],
        "bomb": record(1, 1, b"a" * 1000, repeated_frame(b"a", 100_000)),
    }


# Keys.


def slot(lock, salt: bytes, kek: bytes, secrets: bytes) -> dict:
    magic = b"mirror key slot 1\n"
    header = [VAULT, lock, salt]
    associated = magic + cbor(header)
    bound = keyed(kek, associated, 64)
    spare = Ed25519PrivateKey.from_private_bytes(derive("spare device", kek + associated)).public_key()
    return {"file": magic + cbor([header, bound[32:], sealed(bound[:32], secrets, associated)]), "spare": raw(spare)}


def key_vectors() -> dict:
    salt, entropy, seed = bytes(range(32)), bytes(range(100, 132)), bytes([3] * 32)
    device = raw(Ed25519PrivateKey.from_private_bytes(seed).public_key())
    stretched = Argon2id(salt=salt, length=32, iterations=1, lanes=1, memory_cost=8 * KIB).derive(b"correct horse")
    replication = derive("replication", MASTER + VAULT)
    member, keyless = b"\x01" + MASTER, b"\x02" + replication
    return {
        "master": MASTER,
        "vault": VAULT,
        "replication": replication,
        "seed": seed,
        "device": device,
        "passphrase": "correct horse",
        "entropy": entropy,
        "passphrase_slot": slot([0, [[8 * KIB, 1, 1]]], salt, stretched, member),
        "recovery_slot": slot([1, []], salt, derive("recovery slot", entropy), member),
        "device_slot": slot([2, [device]], salt, derive("device slot", seed), keyless),
    }


def epoch_vectors() -> dict:
    def agreement(seed: bytes) -> X25519PrivateKey:
        return X25519PrivateKey.from_private_bytes(derive("device agreement", seed))

    giver, taker = bytes([4] * 32), bytes([3] * 32)
    device = raw(Ed25519PrivateKey.from_private_bytes(taker).public_key())
    giver_public, taker_public = raw(agreement(giver).public_key()), raw(agreement(taker).public_key())
    shared = agreement(giver).exchange(X25519PublicKey.from_public_bytes(taker_public))
    epoch = derive("epoch id", derive("replication", MASTER + VAULT))
    earlier = derive("epoch id", derive("replication", EARLIER + VAULT))
    grant = derive("epoch grant", shared + giver_public + taker_public + device + VAULT + epoch)
    return {
        "master": MASTER,
        "earlier_master": EARLIER,
        "vault": VAULT,
        "giver_seed": giver,
        "taker_seed": taker,
        "giver_agreement": giver_public,
        "taker_agreement": taker_public,
        "epoch": epoch,
        "earlier_epoch": earlier,
        "grant": sealed(grant, b"\x01" + MASTER),
        "link": sealed(derive("epoch link", MASTER + VAULT + earlier), EARLIER),
    }


# The proof of membership.


def hello_vectors() -> dict:
    replication, exporter = derive("replication", MASTER + VAULT), bytes(range(32))
    plaintext = cbor([1, 0, VAULT, bytes([5] * 32), [2, []], {}, {}, bytes([6] * 32), 65536, None, b""])

    def said_by(side: str) -> bytes:
        key = derive(f"hello {side}", replication + exporter)
        siv = keyed(derive("hello siv", key), plaintext)
        return siv + sealed(keyed(derive("hello encryption", key), siv), plaintext, siv)

    return {"replication": replication, "exporter": exporter, "vault": VAULT, "replica": bytes([5] * 32), "root": bytes([6] * 32),
            "inline_bytes_max": 65536, "dialer": said_by("dialer"), "listener": said_by("listener")}


# Cut points: FastCDC as the paper has it, a byte at a time. The masks are those of the paper's normalisation 2 around 1 MiB.

LEAST, MEAN, MOST = 256 * KIB, 1024 * KIB, 4096 * KIB
MASK_BELOW, MASK_ABOVE = 0x0000D93767537000, 0x0000D90707537000
WORD = (1 << 64) - 1


def next_cut(gear: list, data: bytes) -> int:
    end = min(len(data), MOST)
    if end <= LEAST:
        return end
    fingerprint = 0
    for at in range(LEAST, end - end % 2):
        fingerprint = ((fingerprint << 1) + gear[data[at]]) & WORD
        if fingerprint & (MASK_BELOW if at < min(MEAN, end) - min(MEAN, end) % 2 else MASK_ABOVE) == 0:
            return at
    return end


def cut_vectors() -> dict:
    table = derive("gear table", bytes([8] * 32), 2048)
    gear = [int.from_bytes(table[at : at + 8], "little") for at in range(0, 2048, 8)]
    seed, length = b"what is cut", 12 * MEAN + 12345
    data, cuts = blake3(seed).digest(length=length), []
    while sum(cuts) < length:
        cuts.append(next_cut(gear, data[sum(cuts) : sum(cuts) + MOST]))
    return {"gear_key": bytes([8] * 32), "seed": seed, "length": length, "gear_table_hash": blake3(table).digest(), "cuts": cuts}


def main() -> None:
    made = {"seal": seal_vectors(), "keys": key_vectors(), "epochs": epoch_vectors(), "hello": hello_vectors(), "cuts": cut_vectors()}
    for name, vectors in made.items():
        path, text = HERE / f"{name}.json", json.dumps(shown(vectors), indent=1) + "\n"
        if "--check" not in sys.argv:
            path.write_text(text)
        elif path.read_text() != text:
            sys.exit(f"{path} is not what the specification says")


main()
