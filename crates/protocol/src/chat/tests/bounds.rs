//! Queues and workers: nothing grows without end, nobody is forgotten, nobody wakes in vain.
