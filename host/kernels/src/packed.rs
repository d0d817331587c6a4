//! A weight matrix in the form the product kernels read.
//!
//! Rows are outputs, columns are inputs. The matrix is cut into tiles of 8 rows (see `layout`), one after the
//! other; the last tile is padded with zeros. The packed copy is the only one that needs to stay in memory.

use std::error::Error;
use std::sync::Mutex;

use crate::KernelError;
use crate::format::WeightType;
use crate::layout::{TILE, TileLayout, UNIT, decode_unit, pack_tile};
use crate::memory::Buffer;
use crate::pool::{Pool, Shards};

/// Tiles that one task packs: large enough to amortise its row buffer, small enough to share out.
const TILES_PER_TASK: usize = 16;

/// A matrix `[rows, cols]` packed for the kernels.
pub struct PackedMatrix {
    ty: WeightType,
    rows: usize,
    cols: usize,
    data: Buffer,
}

impl PackedMatrix {
    /// Packs a whole matrix given in file layout, row after row.
    ///
    /// # Errors
    /// As [`PackedMatrix::pack_rows`], and [`KernelError::Length`] if `bytes` is not exactly that long.
    pub fn pack(pool: &Pool, ty: WeightType, rows: usize, cols: usize, bytes: &[u8]) -> Result<Self, KernelError> {
        let row_bytes = row_bytes(ty, cols)?;
        let want = row_bytes.checked_mul(rows).ok_or(KernelError::Shape { ty, rows, cols })?;
        if bytes.len() != want {
            return Err(KernelError::Length { have: bytes.len(), want });
        }
        Self::pack_rows(pool, ty, rows, cols, &|row, out| {
            out.copy_from_slice(&bytes[row * row_bytes..][..row_bytes]);
            Ok(())
        })
    }

    /// Packs a matrix whose rows come from `read(row, bytes)`, which fills `bytes` with that row in file
    /// layout. Called from all workers, each row once, in no fixed order: the place to permute rows, to
    /// join tensors, or to read from a file.
    ///
    /// # Errors
    /// [`KernelError::Shape`] and [`KernelError::RowLength`] before anything is read or allocated,
    /// [`KernelError::Memory`], or [`KernelError::Source`] with the first failing row.
    pub fn pack_rows(
        pool: &Pool,
        ty: WeightType,
        rows: usize,
        cols: usize,
        read: RowSource<'_>,
    ) -> Result<Self, KernelError> {
        let row_bytes = row_bytes(ty, cols)?;
        let shape = || KernelError::Shape { ty, rows, cols };
        let tile_bytes = TileLayout::of(ty).tile_bytes(cols).ok_or_else(shape)?;
        let tiles = rows.div_ceil(TILE);
        let size = tile_bytes.checked_mul(tiles).filter(|&size| size > 0 && size <= isize::MAX as usize);
        let mut data = Buffer::zeroed(size.ok_or_else(shape)?)?;

        let failed: Mutex<Option<(usize, Box<dyn Error + Send + Sync>)>> = Mutex::new(None);
        let shards = Shards::new(&mut data);
        pool.run(tiles.div_ceil(TILES_PER_TASK), &|task| {
            let mut buffer = vec![0; row_bytes * TILE];
            let first = task * TILES_PER_TASK;
            for tile in first..tiles.min(first + TILES_PER_TASK) {
                let present = TILE.min(rows - tile * TILE);
                for (r, bytes) in buffer.chunks_exact_mut(row_bytes).take(present).enumerate() {
                    if let Err(error) = read(tile * TILE + r, bytes) {
                        let mut failed = failed.lock().unwrap_or_else(|e| e.into_inner());
                        if failed.as_ref().is_none_or(|(row, _)| *row > tile * TILE + r) {
                            *failed = Some((tile * TILE + r, error));
                        }
                        return;
                    }
                }
                let mut views: [&[u8]; TILE] = [&[]; TILE];
                views.iter_mut().zip(buffer.chunks_exact(row_bytes)).for_each(|(view, row)| *view = row);
                // SAFETY: every tile belongs to exactly one task.
                let out = unsafe { shards.range(tile * tile_bytes, tile_bytes) };
                pack_tile(ty, cols, &views[..present], out);
            }
        });
        match failed.into_inner().unwrap_or_else(|e| e.into_inner()) {
            Some((row, source)) => Err(KernelError::Source { row, source }),
            None => Ok(Self { ty, rows, cols, data }),
        }
    }

    pub fn weight_type(&self) -> WeightType {
        self.ty
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes of memory the packed weights take.
    pub fn size_bytes(&self) -> usize {
        self.data.len()
    }

    /// Bytes a packed matrix of this shape will take; `None` if the shape is refused.
    pub fn packed_bytes(ty: WeightType, rows: usize, cols: usize) -> Option<usize> {
        ty.row_bytes(cols)?;
        TileLayout::of(ty).tile_bytes(cols)?.checked_mul(rows.div_ceil(TILE))
    }

    /// Decodes row `row` into `out`, exactly as [`crate::dequantize`] does: an embedding lookup.
    ///
    /// # Panics
    /// If `row` is outside the matrix or `out` is not `cols` long.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        assert_eq!(out.len(), self.cols, "length of a row");
        let layout = TileLayout::of(self.ty);
        let blocks = self.tile(row / TILE).chunks_exact(layout.block_bytes());
        let units = blocks.flat_map(|block| (0..layout.units).map(move |j| (block, j)));
        let mut weights = [[0.0; TILE]; UNIT];
        for (out, (block, j)) in out.chunks_mut(UNIT).zip(units) {
            decode_unit(self.ty, block, j, &mut weights);
            out.iter_mut().zip(&weights).for_each(|(out, lanes)| *out = lanes[row % TILE]);
        }
    }

    pub(crate) fn tiles(&self) -> usize {
        self.rows.div_ceil(TILE)
    }

    pub(crate) fn tile(&self, tile: usize) -> &[u8] {
        self.tile_run(tile, 1)
    }

    /// `count` tiles from `first` on.
    pub(crate) fn tile_run(&self, first: usize, count: usize) -> &[u8] {
        let bytes = self.data.len() / self.tiles();
        &self.data[first * bytes..][..count * bytes]
    }
}

/// Fills a buffer with one row in file layout; called from several threads.
pub type RowSource<'a> = &'a (dyn Fn(usize, &mut [u8]) -> Result<(), Box<dyn Error + Send + Sync>> + Sync);

impl std::fmt::Debug for PackedMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PackedMatrix({} [{}, {}])", self.ty, self.rows, self.cols)
    }
}

fn row_bytes(ty: WeightType, cols: usize) -> Result<usize, KernelError> {
    ty.row_bytes(cols).ok_or(KernelError::RowLength { ty, cols, block: ty.block_weights() })
}
