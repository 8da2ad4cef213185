"""Readers: from files that people have to systems (``nri-fast convert``).

Each reader, one a file, gives a :class:`~nri_fast.readers.recording.Source`: recordings whose states are read piece
by piece. :func:`~nri_fast.readers.convert.convert` cuts them into windows, estimates velocities, splits by recording
and writes ``.npz`` files that :func:`nri_fast.load_trajectories` reads.
"""
