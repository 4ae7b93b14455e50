"""A precompute-then-train image captioner, as a DVC pipeline."""

import os

# Some network file systems have no locks, and HDF5 would refuse to open a file there. None is
# needed: files are written under temporary names and never changed in place. HDF5 reads the
# variable when it is loaded, through Keras or h5py, so it is set before any other import.
os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")
