//! AdamW, Muon, clipping and schedules.
