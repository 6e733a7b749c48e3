"""Drawn camera-trap photos and the whole story run on them: nothing here is needed to train or to run a device."""
