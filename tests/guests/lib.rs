//! Empty: the guests are this package's examples, so that they share one manifest.
