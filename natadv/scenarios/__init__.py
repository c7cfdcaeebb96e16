"""Why a picture is hard: the attacks, each a pure function of (picture, key)."""
