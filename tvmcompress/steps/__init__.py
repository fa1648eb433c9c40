"""The steps of a compression, one file each: `base` says what one is, `registry` lists them, `plan` makes them of a recipe."""
