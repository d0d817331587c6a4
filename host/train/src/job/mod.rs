//! The job file: what is to be trained, from what, how.
