//! Log macros, as in `format!`: `info!("{n} words")`. Lines go to the request's trace and to the component's log.

pub use crate::telemetry::Level;

/// Writes one line. The macros call it.
pub fn write(level: Level, message: &str) {
    crate::sys::telemetry::log(level, message);
}

macro_rules! level {
    ($name:ident, $level:ident, $dollar:tt) => {
        /// Writes a line to the component's log at the level of its name.
        #[macro_export]
        macro_rules! $name {
                                    ($dollar($part:tt)*) => {
                                        $crate::log::write($crate::log::Level::$level, &::std::format!($dollar($part)*))
                                    };
                                }
    };
}
level!(debug, Debug, $);
level!(info, Info, $);
level!(warn, Warn, $);
level!(error, Error, $);
