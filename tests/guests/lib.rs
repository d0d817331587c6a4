//! What the test guests share; the guests themselves are this package's examples, a file and a behaviour each.

/// A shield that does something, by a function of type `fn() -> Result<()>`, whenever it is asked to judge: in `check`
/// and in every `feed`. If that returns, it passes everything.
#[macro_export]
macro_rules! shield_that {
    ($does:expr) => {
        #[derive(stockade_guest::prelude::Deserialize)]
        struct Guest {}

        impl stockade_guest::prelude::Shield for Guest {
            fn hold_back(&self) -> u32 {
                0
            }
            fn check(
                &self,
                _: stockade_guest::prelude::Direction,
                _: Vec<stockade_guest::prelude::Message>,
            ) -> stockade_guest::Result<stockade_guest::prelude::Verdict> {
                $does()?;
                Ok(stockade_guest::prelude::Verdict::Pass)
            }
            fn session(
                self: std::rc::Rc<Self>,
                _: stockade_guest::prelude::Channel,
                _: Vec<stockade_guest::prelude::Message>,
            ) -> stockade_guest::Result<Box<dyn stockade_guest::prelude::Session>> {
                Ok(Box::new(Fed(0)))
            }
        }

        /// How many bytes came.
        struct Fed(u64);

        impl stockade_guest::prelude::Session for Fed {
            fn feed(&mut self, text: &str) -> stockade_guest::Result<stockade_guest::prelude::Ruling> {
                $does()?;
                self.0 += text.len() as u64;
                self.finish()
            }
            fn finish(&mut self) -> stockade_guest::Result<stockade_guest::prelude::Ruling> {
                Ok(stockade_guest::prelude::Ruling { cleared: self.0, edits: Vec::new(), violation: None })
            }
        }
        stockade_guest::export!(Guest as shield);
    };
}
