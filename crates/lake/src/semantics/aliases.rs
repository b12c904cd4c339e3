//! Functions that have several names.
//!
//! The engine gives a call by another than the first name a title of its own, which holds the
//! title of its arguments twice: thirty calls of `pow` within each other have a title of
//! gigabytes. So within an expression functions go by their first names. Where a call is all of
//! an output column, the column keeps the name that was written.

use std::collections::HashMap;
use std::sync::LazyLock;

use datafusion::execution::SessionStateDefaults;
use datafusion::sql::sqlparser::ast::{Function, Ident};

/// The first name by each other one.
static FIRST_NAMES: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
    let functions =
        SessionStateDefaults::default_scalar_functions().into_iter().chain(super::own_functions());
    let mut names = HashMap::new();
    for function in functions {
        for name in function.aliases().iter().map(String::as_str).chain([function.name()]) {
            names.insert(name.to_owned(), function.name().to_owned());
        }
    }
    names.retain(|name, first| name != first);
    names
});

/// The same call by the function's first name.
pub(super) fn by_first_name(mut function: Function) -> Function {
    if let [part] = function.name.0.as_slice()
        && let Some(name) = part.as_ident()
        && let Some(first) = FIRST_NAMES.get(&name.value.to_lowercase())
    {
        function.name = Ident::with_span(name.span, first.as_str()).into();
    }
    function
}
