//! Generators make synthetic data, row by row.

use super::glue;
use crate::bindings::generator::exports::stockade::plugin::generator as raw;
use crate::{Error, Result, config, panic};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::cell::RefCell;
use std::rc::Rc;

/// Makes synthetic data.
pub trait Generator: DeserializeOwned + 'static {
    /// Begins a generation; `spec` is the job's own configuration.
    fn rows(self: Rc<Self>, spec: Value) -> Result<Box<dyn Rows>>;
}

/// A running generation.
pub trait Rows {
    /// The next rows, each an object; `None` after the last.
    fn next(&mut self) -> Result<Option<Vec<Value>>>;
}

impl<T: Generator> raw::Guest for glue::Generator<T> {
    type Rows = RowsGlue<T>;
}

/// A generation, or why there is none: the constructor cannot answer with an error.
#[doc(hidden)]
pub struct RowsGlue<T> {
    rows: RefCell<Result<Box<dyn Rows>>>,
    generator: std::marker::PhantomData<T>,
}

impl<T: Generator> raw::GuestRows for RowsGlue<T> {
    fn new(spec: String) -> Self {
        panic::install();
        let begin = || config::load::<T>()?.rows(serde_json::from_str(&spec)?);
        Self { rows: RefCell::new(begin()), generator: std::marker::PhantomData }
    }
    fn next(&self) -> Result<Option<Vec<String>>> {
        let mut rows = self.rows.borrow_mut();
        let next = rows.as_mut().map_err(|e| Error::clone(e))?.next()?;
        Ok(next.map(|rows| rows.iter().map(Value::to_string).collect()))
    }
}
