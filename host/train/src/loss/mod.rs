//! Training losses as functions of log-probabilities, each with its derivative.
