//! Vectors for benchmarks, drawn as embeddings are, not as noise is: each is the sum of one of 1000 topics, drawn from a
//! hierarchy, and noise of its own, so that near neighbours exist and are many.

/// Dimensions.
pub const D: usize = 384;
const TOPICS: usize = 1000;

/// Normal numbers from a fixed seed (splitmix64 and Box-Muller).
pub struct Draw(u64);

impl Draw {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
    fn normal(&mut self) -> f32 {
        let (u, v) = (self.uniform().max(1e-12), self.uniform());
        ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    }
    fn vector(&mut self) -> Vec<f32> {
        (0..D).map(|_| self.normal()).collect()
    }
}

/// A topic is a field of thirty and a bent of its own.
fn topics(draw: &mut Draw) -> Vec<Vec<f32>> {
    let fields: Vec<Vec<f32>> = (0..30).map(|_| draw.vector()).collect();
    let topic = |i: usize| {
        let own = draw.vector();
        fields[i % fields.len()].iter().zip(own).map(|(f, o)| f + o).collect()
    };
    (0..TOPICS).map(topic).collect()
}

fn member(draw: &mut Draw, topics: &[Vec<f32>]) -> Vec<f32> {
    let topic = &topics[(draw.uniform() * TOPICS as f64) as usize % TOPICS];
    topic.iter().map(|t| t + 1.2 * draw.normal()).collect()
}

/// Where a benchmark's vectors come from.
pub enum Supply {
    Drawn {
        draw: Draw,
        topics: Vec<Vec<f32>>,
    },
    /// Embeddings of texts: f32, little endian, rows of [`D`]; from the front again after the last.
    Read {
        rows: Vec<f32>,
        next: usize,
    },
}

impl Supply {
    pub fn drawn(seed: u64) -> Self {
        let mut draw = Draw(seed);
        let topics = topics(&mut draw);
        Self::Drawn { draw, topics }
    }

    pub fn read(file: &std::path::Path) -> Self {
        let bytes = std::fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let rows = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        Self::Read { rows, next: 0 }
    }

    pub fn vector(&mut self) -> Vec<f32> {
        match self {
            Self::Drawn { draw, topics } => member(draw, topics),
            Self::Read { rows, next } => {
                let all = rows.len() / D;
                let at = *next % all;
                *next += 1;
                rows[at * D..][..D].to_vec()
            }
        }
    }
}
