"""Times Flower's SecAgg+ for bench/secure-aggregation/peers.ts: one sampled client and a sampled part of the server's work for every line on stdin.

    python bench/peers/flower_secaggplus.py clients dimension dropped shares threshold

Needs Flower alone: a virtual environment with `pip install flwr==1.41.0`. What runs is Flower's own code: the stages of its client mod, and the functions that its
server workflow calls, in the same order. Left out in Flower's favor: its message layer, the conversion of a client's state between stages, and dequantizing.

Every answer is a JSON object of CPU seconds: `client` (all four stages), `masked` (adding one masked input), `active` (a survivor's self mask taken off), `dropped`
(a dropout's pairwise masks taken off), `upload` in bytes without framing.
"""

import importlib
import json
import sys
import time

import numpy as np
from flwr.common import bytes_to_ndarray, ndarrays_to_parameters
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import decrypt, encrypt, generate_shared_key
from flwr.common.secure_aggregation.ndarrays_arithmetic import get_parameters_shape, parameters_addition, parameters_subtraction
from flwr.common.secure_aggregation.secaggplus_constants import Key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen, share_keys_plaintext_concat, share_keys_plaintext_separate
from flwr.supercore.primitives.asymmetric import bytes_to_private_key, bytes_to_public_key

# Its package has a function of the same name.
mod = importlib.import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")
clients, dimension, dropped, shares, threshold = map(int, sys.argv[1:6])
MODULUS, TARGET, CLIP = 2**32, 2**22, 8.0
# Of a client's holders (itself among them) as many answer as survive.
ANSWERING = max(threshold, round(shares * (clients - dropped) / clients))

setup = {
    Key.SAMPLE_NUMBER: clients,
    Key.SHARE_NUMBER: shares,
    Key.THRESHOLD: threshold,
    Key.CLIPPING_RANGE: CLIP,
    Key.TARGET_RANGE: TARGET,
    Key.MOD_RANGE: MODULUS,
    Key.MAX_WEIGHT: 1.0,
}


def seconds(run):
    """CPU seconds of this process, all of its threads, and the result."""
    start = time.process_time()
    value = run()
    return time.process_time() - start, value


def new_state(nid):
    state = mod.SecAggPlusState()
    state.nid = nid
    return state


# Neighbors of the sampled client, which is number 0: their keys are made once.
neighbors = [new_state(nid) for nid in range(1, shares)]
for neighbor in neighbors:
    mod._setup(neighbor, dict(setup))
parameters = ndarrays_to_parameters([np.random.default_rng(1).normal(size=dimension)])


def measure():
    state = new_state(0)
    client, _ = seconds(lambda: mod._setup(state, dict(setup)))
    keys = {str(member.nid): [member.pk1, member.pk2] for member in [state, *neighbors]}
    spent, sharing = seconds(lambda: mod._share_keys(state, keys))
    client += spent
    channel = {n.nid: generate_shared_key(bytes_to_private_key(n.sk2), bytes_to_public_key(state.pk2)) for n in neighbors}
    opened = [
        share_keys_plaintext_separate(decrypt(channel[destination], ciphertext))
        for destination, ciphertext in zip(sharing[Key.DESTINATION_LIST], sharing[Key.CIPHERTEXT_LIST], strict=True)
    ]
    # As long as real ones, and as unreadable.
    inbox = [encrypt(channel[n.nid], share_keys_plaintext_concat(n.nid, 0, opened[0][2], opened[0][3])) for n in neighbors]
    delivery = {Key.CIPHERTEXT_LIST: inbox, Key.SOURCE_LIST: [n.nid for n in neighbors]}
    spent, masked = seconds(lambda: mod._collect_masked_vectors(state, delivery, 1, parameters))
    client += spent
    gone = round(shares * dropped / clients)
    lists = {Key.ACTIVE_NODE_ID_LIST: list(range(shares - gone)), Key.DEAD_NODE_ID_LIST: list(range(shares - gone, shares))}
    spent, answer = seconds(lambda: mod._unmask(state, lists))
    client += spent

    total = [bytes_to_ndarray(b) for b in masked[Key.MASKED_PARAMETERS]]
    adding, total = seconds(lambda: parameters_addition(total, [bytes_to_ndarray(b) for b in masked[Key.MASKED_PARAMETERS]]))
    seed_shares = [state.rd_seed_share_dict[0]] + [share for _, _, share, _ in opened]
    key_shares = [state.sk1_share_dict[0]] + [share for _, _, _, share in opened]

    def take_self_mask_off():
        seed = combine_shares(seed_shares[:ANSWERING])
        parameters_subtraction(total, pseudo_rand_gen(seed, MODULUS, get_parameters_shape(total)))
        return seed

    def take_pairwise_masks_off():
        secret = combine_shares(key_shares[:ANSWERING])
        vector = total
        for neighbor in neighbors:
            key = generate_shared_key(bytes_to_private_key(secret), bytes_to_public_key(neighbor.pk1))
            vector = parameters_subtraction(vector, pseudo_rand_gen(key, MODULUS, get_parameters_shape(vector)))
        return secret

    active, seed = seconds(take_self_mask_off)
    gone_seconds, secret = seconds(take_pairwise_masks_off) if dropped else (0.0, state.sk1)
    if seed != state.rd_seed or secret != state.sk1:
        raise SystemExit("Flower's shares did not give the secret back")
    upload = len(state.pk1 + state.pk2) + sum(map(len, sharing[Key.CIPHERTEXT_LIST] + masked[Key.MASKED_PARAMETERS] + answer[Key.SHARE_LIST]))
    return {"client": client, "masked": adding, "active": active, "dropped": gone_seconds, "upload": upload}


for _ in sys.stdin:
    print(json.dumps(measure()), flush=True)
