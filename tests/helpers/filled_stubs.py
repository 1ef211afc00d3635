"""What an author writes in place of which line of each stub."""

FILLED = {
    "training": (
        'raise NotImplementedError("the loss of my_own")',
        'return nt_xent(b.out["z"], self.temperature), state',
    ),
    "clustering": (
        'raise NotImplementedError("the cluster of each item for my_own")',
        "return grouped(f, f.argmax(1))",
    ),
    "distance": (
        'raise NotImplementedError("the score of my_own")',
        "d = (x.double()[:, None] - c.centroid.double()).abs().sum(2).min(1)\n"
        "            return Scores(d.values, d.indices)",
    ),
    "threshold": (
        'raise NotImplementedError("the rule of my_own, which accepts self.level of the reference")',
        "return Rule(lambda s: s.score, float(ref.score.quantile(self.level, interpolation='higher')))",
    ),
    "posthoc": ('raise NotImplementedError("the score of my_own")', "return -logits.amax(1)"),
    "dataset": (
        'raise NotImplementedError("the images of my_own")',
        "rng = np.random.default_rng(split == 'test')\n"
        "        x = rng.integers(256, size=(20, 8, 8), dtype=np.uint8)\n"
        "        return Images(x, np.zeros(20, dtype=np.int64), ('a',))",
    ),
}
