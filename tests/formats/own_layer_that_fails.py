"""A layer of a user's own whose config another version wrote."""


class Tower:
    """Takes no config."""

    @classmethod
    def from_config(cls, config):
        raise TypeError(f"unexpected {sorted(config)}")
