//! A shield that calls the tool `echo` before it passes anything.

use stockade_guest::prelude::*;

test_guests::shield_that!(|| tools::call("echo", "{}").map(drop));
