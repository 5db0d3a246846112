"""Writes gaussian-mpmath.json: python3 gaussian-mpmath.py > gaussian-mpmath.json (needs mpmath; ran with 1.3.0)."""
import json
import mpmath as mp

mp.mp.dps = 60


def erfcx(x):
    if x < 1000:
        return mp.exp(x * x) * mp.erfc(x)
    return 1 / (x * mp.sqrt(mp.pi)) * (1 - 1 / (2 * x * x) + 3 / (4 * x**4))  # DLMF 7.12.1


def upper_tail(x):
    return mp.erfc(x / mp.sqrt(2)) / 2


def delta(mu, epsilon):
    """Balle & Wang 2018, Thm 8."""
    return upper_tail(epsilon / mu - mu / 2) - mp.exp(epsilon + mp.log(upper_tail(epsilon / mu + mu / 2)))


def epsilon(mu, target):
    low, high = mp.mpf(0), mu * mu / 2 + mu * mp.sqrt(2 * mp.log(1 / target))
    if delta(mu, low) <= target:
        return low
    for _ in range(140):
        middle = (low + high) / 2
        if delta(mu, middle) <= target:
            high = middle
        else:
            low = middle
    return high


print(json.dumps({
    "meta": {"tool": "mpmath " + mp.__version__ + ", 60 digits"},
    "erfcx": [[x, float(erfcx(mp.mpf(x)))] for x in [0.0, 0.001, 0.3, 0.99999, 1.0, 1.00001, 1.5, 2.0, 2.718281828459045, 3.14159, 5.0, 7.5, 12.0, 30.0, 100.0, 1e4, 1e8]],
    "logNormalCdf": [[x, float(mp.log(upper_tail(-mp.mpf(x))))] for x in [-40.0, -8.0, -2.718281828459045, -1.0, -0.1, 0.0, 0.1, 1.618033988749895, 5.0, 8.0]],
    "gaussianEpsilon": [
        {"noiseMultiplier": z, "delta": d, "epsilon": float(epsilon(1 / mp.mpf(z), mp.mpf(d)))}
        for z in [1e-3, 0.0314159, 0.5, 1.618033988749895, 31.4159, 1e3, 1e6]
        for d in [1e-30, 1e-12, 2.718281828459045e-6, 0.1]
    ],
    "roundedGaussian": [
        {"sigma": s, "pmfFrom0": [float(upper_tail((k - mp.mpf(1) / 2) / s) - upper_tail((k + mp.mpf(1) / 2) / s)) for k in range(n + 1)]}
        for s, n in [(1, 5), (2, 9), (3, 12), (7, 28), (50, 180)]
    ],
}, indent=1))
