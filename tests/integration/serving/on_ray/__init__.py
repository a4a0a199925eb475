"""A package, so that what its tests share ends with the last of them and takes nothing from those that follow."""
