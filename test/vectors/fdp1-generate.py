"""Writes fdp1-frames.json and fdp1-handshake.json from docs/protocol.md alone.

Python 3.9 or newer, standard library only: a second implementation of the protocol, slow and small, so that the TypeScript is not
its own oracle. Run it in this folder: python3 fdp1-generate.py

Ed25519 and X25519 follow the pseudocode of RFC 8032 section 6 and RFC 7748 section 5; XSalsa20 and Poly1305 follow Bernstein's
"Extending the Salsa20 nonce" and RFC 8439 section 2.5. Not constant-time: never use it with a key that matters.
"""
import base64
import hashlib
import hmac
import json
import struct
import zlib
from decimal import Decimal

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
BASE_Y = 4 * pow(5, P - 2, P) % P


# --- Ed25519 ---
def recover_x(y, sign):
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    return P - x if x & 1 != sign else x


BASE = (recover_x(BASE_Y, 0), BASE_Y)


def add(a, b):
    t = D * a[0] * b[0] * a[1] * b[1] % P
    return ((a[0] * b[1] + b[0] * a[1]) * pow(1 + t, P - 2, P) % P, (a[1] * b[1] + a[0] * b[0]) * pow(1 - t, P - 2, P) % P)


def multiply(k, point):
    result = (0, 1)
    while k:
        if k & 1:
            result = add(result, point)
        point = add(point, point)
        k >>= 1
    return result


def compress(point):
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def expand(seed):
    h = hashlib.sha512(seed).digest()
    return (int.from_bytes(h[:32], "little") & (2**254 - 8)) | 2**254, h[32:]


def public_key(seed):
    return compress(multiply(expand(seed)[0], BASE))


def sign(seed, message):
    a, prefix = expand(seed)
    key = public_key(seed)
    r = int.from_bytes(hashlib.sha512(prefix + message).digest(), "little") % L
    big_r = compress(multiply(r, BASE))
    h = int.from_bytes(hashlib.sha512(big_r + key + message).digest(), "little") % L
    return big_r + ((r + h * a) % L).to_bytes(32, "little")


# --- crypto_box ---
def x25519(k, u):
    k = (int.from_bytes(k, "little") & (2**254 - 8)) | 2**254
    x1 = int.from_bytes(u, "little") % 2**255
    x2, z2, x3, z3 = 1, 0, x1, 1
    for t in reversed(range(255)):
        bit = k >> t & 1
        if bit:
            x2, z2, x3, z3 = x3, z3, x2, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a % P, b * b % P, d * a % P, c * b % P
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % P, x1 * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
        if bit:
            x2, z2, x3, z3 = x3, z3, x2, z2
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def salsa_rounds(words):
    w = list(words)
    columns = [(0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11)]
    rows = [(0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14)]
    for _ in range(10):
        for a, b, c, d in columns + rows:
            for target, x, y, shift in ((b, a, d, 7), (c, b, a, 9), (d, c, b, 13), (a, d, c, 18)):
                s = (w[x] + w[y]) & 0xFFFFFFFF
                w[target] ^= (s << shift | s >> (32 - shift)) & 0xFFFFFFFF
    return w


def salsa_input(key, block):
    c, k, n = struct.unpack("<4I", b"expand 32-byte k"), struct.unpack("<8I", key), struct.unpack("<4I", block)
    return [c[0], *k[:4], c[1], *n, c[2], *k[4:], c[3]]


def hsalsa20(key, block):
    w = salsa_rounds(salsa_input(key, block))
    return struct.pack("<8I", *(w[i] for i in (0, 5, 10, 15, 6, 7, 8, 9)))


def xsalsa20_stream(key, nonce, length):
    subkey = hsalsa20(key, nonce[:16])
    stream = b""
    while len(stream) < length:
        words = salsa_input(subkey, nonce[16:] + struct.pack("<Q", len(stream) // 64))
        stream += struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(words, salsa_rounds(words))))
    return stream[:length]


def poly1305(key, message):
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for i in range(0, len(message), 16):
        total = (total + int.from_bytes(message[i : i + 16] + b"\1", "little")) * r % (2**130 - 5)
    return ((total + int.from_bytes(key[16:], "little")) % 2**128).to_bytes(16, "little")


def box(message, nonce, public, secret):
    key = hsalsa20(x25519(secret, public), bytes(16))
    stream = xsalsa20_stream(key, nonce, 32 + len(message))
    sealed = bytes(a ^ b for a, b in zip(message, stream[32:]))
    return poly1305(stream[:32], sealed) + sealed


# --- canonical JSON (enough of RFC 8785: ASCII keys) ---
def number(x):
    if isinstance(x, int):
        return str(x)
    sign_, digits, exponent = Decimal(repr(x)).normalize().as_tuple()
    text, point = "".join(map(str, digits)), len(digits) + exponent
    if 0 < point <= 21:
        body = text.ljust(point, "0") if exponent >= 0 else text[:point] + "." + text[point:]
    elif -6 < point <= 0:
        body = "0." + "0" * -point + text
    else:
        body = text[0] + ("." + text[1:] if text[1:] else "") + f"e{point - 1:+d}"
    return "-" * sign_ + body


def canonical(value):
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{canonical(value[k])}" for k in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return number(value)
    return json.dumps(value, ensure_ascii=False)


# --- fdp/1 ---
def b64(b):
    return base64.b64encode(b).decode()


def digest(b):
    return "sha256:" + hashlib.sha256(b).hexdigest()


def fingerprint(key):
    return base64.b32encode(hashlib.sha256(b"fdp/1 identity\n" + key).digest()).decode().lower()[:26]


CODES = {"float32": (1, "f"), "float16": (2, "e"), "uint8": (3, "B"), "int32": (4, "i")}
BITS = {f"bits{b}": 4 + b for b in range(1, 9)}
CONTENT = {"features": 1, "logits": 2, "probabilities": 3, "grid": 4}


def frame(dtype, content, shape, values, scale=1.0, offset=0.0):
    """For uint8, `values` are the bytes themselves."""
    code, letter = CODES[dtype]
    body = struct.pack("<4sBBBBff", b"FDPM", 1, code, len(shape), CONTENT[content], scale, offset)
    body += struct.pack(f"<{len(shape)}I", *shape) + struct.pack(f"<{len(values)}{letter}", *values)
    return body + struct.pack("<I", zlib.crc32(body))


def packed_frame(dtype, shape, levels):
    """Section 9.1. `levels` row by row; for bits1 the number of each row's class."""
    bits, columns = int(dtype[4:]), shape[1]
    width = bits if bits > 1 else (columns - 1).bit_length()
    stream = sum(level << (i * width) for i, level in enumerate(levels))
    body = struct.pack("<4sBBBBff", b"FDPM", 1, BITS[dtype], 2, CONTENT["probabilities"], 1.0, 0.0) + struct.pack("<2I", *shape)
    body += stream.to_bytes((len(levels) * width + 7) // 8, "little")
    return body + struct.pack("<I", zlib.crc32(body))


def partial(rows, shared, inner):
    """Section 9.2: the rows whose positions are in `shared`, in the frame `inner`, or none and no frame."""
    mask = sum(1 << row for row in shared).to_bytes((rows + 7) // 8, "little")
    body = struct.pack("<4sB3xI", b"FDPP", 1, rows) + mask + inner
    return body + struct.pack("<I", zlib.crc32(body))


def indices(values):
    return {"count": len(values), "indices": b64(struct.pack(f"<{len(values)}I", *values))}


def signed(kind, value, seed):
    document = canonical(value)
    signed_bytes = f"fdp/1 {kind}\n".encode() + document.encode()
    return {"document": document, "signature": b64(sign(seed, signed_bytes))}, digest(signed_bytes)


def raw(text):
    return bytes.fromhex(text.removeprefix("sha256:"))


def frames():
    cases = []

    def case(name, dtype, content, shape, values, decoded=None, **quantised):
        cases.append({"name": name, "dtype": dtype, "content": content, "shape": shape, "values": decoded or values, "hex": frame(dtype, content, shape, values, **quantised).hex()})

    case("one float32 feature", "float32", "features", [1], [0.5])
    case("two examples of 2 x 2 x 1", "float32", "features", [2, 2, 2, 1], [0, 0.25, 0.5, 0.75, 1, -1.5, 3.0e38, 2.0**-149])
    case("probabilities in float16", "float16", "probabilities", [2, 3], [0.5, 0.25, 0.25, 1, 0, 2.0**-24])
    case("float16 limits", "float16", "logits", [1, 4], [65504, -65504, 2.0**-14, -(2.0**-24)])
    case("uint8 with scale 1/4 and offset -8", "uint8", "logits", [2, 2], [0, 255, 32, 33], decoded=[-8, 55.75, 0, 0.25], scale=0.25, offset=-8)
    case("uint8 of equal values has scale 0", "uint8", "probabilities", [1, 3], [0, 0, 0], decoded=[0.125, 0.125, 0.125], scale=0, offset=0.125)
    case("grid", "int32", "grid", [2, 2], [0, -1, 2147483647, -2147483648])
    case("rank 5", "float32", "features", [1, 1, 2, 1, 3], [1, 2, 3, 4, 5, 6])

    def packed_case(name, dtype, shape, levels):
        bits, columns = int(dtype[4:]), shape[1]
        whole = levels if bits > 1 else [int(c == label) for label in levels for c in range(columns)]
        values = [level / (2**bits - 1) for level in whole]
        cases.append({"name": name, "dtype": dtype, "content": "probabilities", "shape": shape, "values": values, "hex": packed_frame(dtype, shape, levels).hex()})

    packed_case("one bit: a class of 10 in 4 bits", "bits1", [5, 10], [3, 0, 9, 9, 1])
    packed_case("one bit: a class of 2 in 1 bit, 9 rows", "bits1", [9, 2], [1, 0, 0, 1, 1, 1, 0, 1, 1])
    packed_case("one bit: a class of 5 in 3 bits", "bits1", [3, 5], [4, 2, 1])
    packed_case("two bits", "bits2", [2, 3], [1, 1, 1, 0, 3, 0])
    packed_case("three bits, which no byte is a multiple of", "bits3", [3, 3], [7, 0, 0, 2, 3, 2, 1, 1, 5])
    packed_case("five bits", "bits5", [2, 4], [31, 0, 0, 0, 8, 8, 8, 7])
    packed_case("eight bits", "bits8", [1, 4], [250, 3, 2, 0])

    quantised = []
    for name, dtype, row, levels in [
        ("largest remainders", "bits2", [0.5, 0.25, 0.25], [1, 1, 1]),
        ("remainders of equal size: the first", "bits3", [0.25, 0.25, 0.25, 0.25], [2, 2, 2, 1]),
        ("rows are divided by their sum", "bits2", [2.0, 1.0, 0.0], [2, 1, 0]),
        ("one bit is the first of the likeliest", "bits1", [0.25, 0.375, 0.375], [0, 1, 0]),
        ("negative is 0", "bits2", [-0.5, 0.5, 0.5], [0, 2, 1]),
    ]:
        quantised.append({"name": name, "dtype": dtype, "row": row, "levels": levels})

    partials = []
    for name, rows, shared, dtype, values in [
        ("rows 1 and 9 of 10", 10, [1, 9], "float32", [[0.25, 0.75], [0.5, 0.5]]),
        ("every row of 8", 8, list(range(8)), "bits1", [1, 0, 1, 1, 0, 0, 1, 0]),
        ("no row of 3", 3, [], "float32", []),
    ]:
        inner = b""
        if shared:
            inner = packed_frame(dtype, [len(shared), 2], values) if dtype == "bits1" else frame(dtype, "probabilities", [len(shared), 2], [v for row in values for v in row])
        whole = [[0, 0] for _ in range(rows)]
        for row, value in zip(shared, values):
            whole[row] = [int(value == 0), int(value == 1)] if dtype == "bits1" else value
        partials.append({"name": name, "rows": rows, "columns": 2, "dtype": dtype, "shared": shared, "values": [v for row in whole for v in row], "hex": partial(rows, shared, inner).hex()})
    return {"protocol": "fdp/1", "frames": cases, "quantized": quantised, "partial": partials}


def handshake():
    coordinator_seed, client_seed = bytes(range(1, 33)), bytes(range(33, 65))
    round_secret, ephemeral_secret, nonce = bytes(range(65, 97)), bytes(range(97, 129)), bytes(range(129, 153))
    client_nonce, server_nonce = bytes(range(153, 185)), bytes(range(185, 217))
    token = "correct horse battery staple — ключ"
    coordinator, client = public_key(coordinator_seed), public_key(client_seed)
    base_point = (9).to_bytes(32, "little")
    box_key, ephemeral_key = x25519(round_secret, base_point), x25519(ephemeral_secret, base_point)

    transfer_set = frame("float32", "features", [4, 2], [0, 0.25, 0.5, 0.75, 1, 0.125, 0.375, 0.625])
    task = {
        "protocol": "fdp/1", "task": "golden", "coordinator": fingerprint(coordinator), "seed": 7, "numClasses": 3, "exampleShape": [2],
        "transferSet": {"digest": digest(transfer_set), "rows": 4},
        "student": {"model": "mlp-small", "optimizer": {"kind": "adam", "learningRate": 0.001}, "batchSize": 32, "pretrainEpochs": 5, "digestEpochs": 2,
                    "revisitEpochs": 1, "l2": 0, "dropout": 0, "earlyStoppingPatience": 0},
        "distillation": {"temperature": 3, "alpha": 0, "loss": "kl"},
        "privacy": {"trustMode": "sealed", "mechanism": "gaussian", "unit": "client", "epsilon": 7.25, "delta": 1e-05, "releases": 5},
        "schedule": {"rounds": 5, "minClients": 2, "quorum": 2, "roundDeadlineMs": 600000},
        "admission": "token",
    }  # fmt: skip
    signed_task, task_digest = signed("task", task, coordinator_seed)

    labels = frame("float32", "probabilities", [2, 3], [0.5, 0.25, 0.25, 0.125, 0.125, 0.75])
    round_one = {"protocol": "fdp/1", "task": "golden", "taskDigest": task_digest, "round": 2, "previous": "sha256:" + "5a" * 32, "trustMode": "sealed",
                 "stages": ["contribution"], "boxKey": b64(box_key), "query": indices([0, 1, 3]),
                 "labels": {"digest": digest(labels), "kind": "probabilities", **indices([1, 2])},
                 "release": {"mechanism": "gaussian", "outputKind": "probabilities", "rows": 3, "columns": 3, "gridStep": 2.0**-12, "noise": {"sigmaGrid": 9000}},
                 "encoding": "float32", "cohort": {"size": 3, "quorum": 2}, "releases": 5, "deadlineMs": 600000}  # fmt: skip
    signed_round, transcript = signed("round", round_one, coordinator_seed)
    finished = {"protocol": "fdp/1", "task": "golden", "taskDigest": task_digest, "reason": "rounds-done", "rounds": 5, "previous": transcript, "labels": None}
    signed_finished, finished_hash = signed("finished", finished, coordinator_seed)

    hello = b"fdp/1 hello\n" + client + client_nonce + server_nonce + raw(task_digest)
    join = b"fdp/1 join\n" + coordinator + client + client_nonce + server_nonce + raw(task_digest)
    token_message = b"fdp/1 token\n" + coordinator + client + client_nonce + server_nonce

    contribution = frame("int32", "grid", [3, 3], [4096, -9123, 17, 0, 1, -1, 2147483647, -2147483648, 8192])
    context = raw(task_digest) + struct.pack("<IB3x", 2, 1) + client + raw(transcript)
    sealed = box(context + contribution, nonce, box_key, ephemeral_secret)
    unsigned = struct.pack("<4sBBHI", b"FDPE", 1, 1, 0, 2) + client + ephemeral_key + nonce + struct.pack("<I", len(sealed)) + sealed
    to_sign = b"fdp/1 envelope\n" + raw(transcript) + hashlib.sha256(unsigned).digest()
    envelope = unsigned + sign(client_seed, to_sign)

    return {
        "protocol": "fdp/1",
        "identities": {
            "coordinator": {"seed": coordinator_seed.hex(), "publicKey": coordinator.hex(), "fingerprint": fingerprint(coordinator)},
            "client": {"seed": client_seed.hex(), "publicKey": client.hex(), "fingerprint": fingerprint(client)},
        },
        "session": {
            "clientNonce": client_nonce.hex(), "serverNonce": server_nonce.hex(), "token": token,
            "helloTranscript": hello.hex(), "helloSignature": sign(coordinator_seed, hello).hex(),
            "joinTranscript": join.hex(), "joinSignature": sign(client_seed, join).hex(),
            "tokenProof": hmac.new(token.encode(), token_message, hashlib.sha256).hexdigest(),
        },
        "documents": {
            "task": {"value": task, "signed": signed_task, "hash": task_digest},
            "round": {"value": round_one, "signed": signed_round, "hash": transcript},
            "finished": {"value": finished, "signed": signed_finished, "hash": finished_hash},
        },
        "envelope": {
            "roundBoxSecret": round_secret.hex(), "roundBoxKey": box_key.hex(), "ephemeralSecret": ephemeral_secret.hex(), "ephemeralKey": ephemeral_key.hex(),
            "nonce": nonce.hex(), "frame": contribution.hex(), "context": context.hex(), "box": sealed.hex(), "signedMessage": to_sign.hex(),
            "envelope": envelope.hex(), "digest": digest(envelope),
        },
    }  # fmt: skip


def secure_round():
    """The announcement of a round of secure aggregation, one client's advert in it, and the advert's envelope: what only the new stages have."""
    coordinator_seed, client_seed = bytes(range(1, 33)), bytes(range(33, 65))
    round_secret, ephemeral_secret, nonce = bytes(range(65, 97)), bytes(range(97, 129)), bytes(range(129, 153))
    channel_secret, mask_secret, self_seed = bytes(range(10, 42)), bytes(range(50, 82)), bytes(range(90, 122))
    client = public_key(client_seed)
    base_point = (9).to_bytes(32, "little")
    box_key, ephemeral_key = x25519(round_secret, base_point), x25519(ephemeral_secret, base_point)
    task_digest = "sha256:" + "a5" * 32
    value = {"protocol": "fdp/1", "task": "golden", "taskDigest": task_digest, "round": 3, "previous": None, "trustMode": "secure-aggregation",
             "stages": ["advertiseKeys", "shareKeys", "maskedInput", "consistencyCheck", "unmask"], "boxKey": b64(box_key), "query": indices([0, 1, 3]), "labels": None,
             "release": {"mechanism": "discreteGaussian", "outputKind": "probabilities", "rows": 3, "columns": 3, "gridStep": 2.0**-12, "shards": 25, "votes": True, "noise": {"sigmaGrid": 9000, "shares": 3}},
             "encoding": "float32", "cohort": {"size": 5, "quorum": 4}, "releases": 5, "deadlineMs": 600000,
             "secureAggregation": {"minCohort": 4, "minSurvivors": 4, "maxCorrupt": 1, "stageDeadlineMs": 30000}}  # fmt: skip
    signed_round, transcript = signed("round", value, coordinator_seed)
    manifest = raw(transcript)
    commitment = hashlib.sha256(b"fdp/1 secagg self seed\n" + manifest + client + self_seed).digest()
    unsigned = struct.pack("<4sBBHI", b"FDPS", 1, 1, 0, 3) + manifest + client + x25519(channel_secret, base_point) + x25519(mask_secret, base_point) + commitment
    advert = unsigned + sign(client_seed, b"fdp/1 secagg message\n" + hashlib.sha256(unsigned).digest())
    context = raw(task_digest) + struct.pack("<IB3x", 3, 2) + client + manifest
    sealed = box(context + advert, nonce, box_key, ephemeral_secret)
    header = struct.pack("<4sBBHI", b"FDPE", 1, 2, 0, 3) + client + ephemeral_key + nonce + struct.pack("<I", len(sealed)) + sealed
    envelope = header + sign(client_seed, b"fdp/1 envelope\n" + manifest + hashlib.sha256(header).digest())
    return {
        "protocol": "fdp/1",
        "coordinatorSeed": coordinator_seed.hex(), "clientSeed": client_seed.hex(), "value": value, "signed": signed_round, "hash": transcript,
        "channelSecret": channel_secret.hex(), "maskSecret": mask_secret.hex(), "selfSeed": self_seed.hex(), "commitment": commitment.hex(), "advert": advert.hex(),
        "roundBoxSecret": round_secret.hex(), "ephemeralSecret": ephemeral_secret.hex(), "nonce": nonce.hex(), "envelope": envelope.hex(), "digest": digest(envelope),
    }  # fmt: skip


if __name__ == "__main__":
    assert public_key(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")).hex().startswith("d75a9801"), "RFC 8032 section 7.1"
    assert x25519(bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"), (9).to_bytes(32, "little")).hex().startswith("8520f009"), "RFC 7748 section 6.1"
    for path, content in (("fdp1-frames.json", frames()), ("fdp1-handshake.json", handshake()), ("fdp1-secure-round.json", secure_round())):
        with open(path, "w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
