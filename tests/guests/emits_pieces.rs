//! An orchestrator that replies with the pieces that the request's metadata lists under `pieces` (a JSON array), one event
//! each, between its configured tags.

use stockade_guest::prelude::*;

#[derive(Deserialize)]
struct Guest {
    #[serde(default)]
    tag: String,
}

impl Orchestrator for Guest {
    fn run(&self, turn: Turn) -> Result<Outcome> {
        let listed = turn.metadata.iter().find(|(key, _)| key == "pieces");
        let (_, json) = listed.ok_or_else(|| Error::Invalid("no pieces".into()))?;
        let pieces: Vec<String> = serde_json::from_str(json).map_err(|e| Error::Invalid(e.to_string()))?;
        output::text(&self.tag)?;
        for piece in pieces {
            output::text(piece)?;
        }
        output::text(&self.tag)?;
        Ok(FinishReason::Stop.into())
    }
}
stockade_guest::export!(Guest as orchestrator);
