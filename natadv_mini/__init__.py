"""The files of the mini world, as an installed package holds them: `natadv.places` reads them."""
