//! The network against recorded values of the reference implementation, and against itself.

mod fixtures;
mod parity;
mod traces;
