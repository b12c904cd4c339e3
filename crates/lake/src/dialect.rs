//! PostgreSQL's dialect for the parser, within bounds.
//!
//! The parser tries some readings and takes them back. Where such places nest, the work doubles
//! with each level: forty calls within each other (`abs(abs(...))`) would be read for years,
//! since an argument might be a name that is computed. No function here has such names, so that
//! reading is left out; and whatever other reading doubles, the parser may begin no more than a
//! number of expressions for each byte of the text.

use std::any::TypeId;
use std::cell::Cell;

use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

/// Expressions that the parser may begin for each byte of a text, taken back or not.
const EXPRESSIONS_A_BYTE: usize = 20;
/// The same for any text, however short.
const EXPRESSIONS: usize = 10_000;

/// See the module's description. For one text.
#[derive(Debug)]
pub(crate) struct Bounded {
    inner: PostgreSqlDialect,
    left: Cell<usize>,
}

impl Bounded {
    pub fn for_text(sql: &str) -> Self {
        let left = sql.len().saturating_mul(EXPRESSIONS_A_BYTE).saturating_add(EXPRESSIONS);
        Self { inner: PostgreSqlDialect {}, left: Cell::new(left) }
    }
}

/// What PostgreSQL's dialect says of itself, passed on.
macro_rules! as_postgres {
    ($($name:ident($($arg:ident: $of:ty),*) -> $gives:ty;)*) => {
        $(fn $name(&self $(, $arg: $of)*) -> $gives {
            self.inner.$name($($arg),*)
        })*
    };
}

impl Dialect for Bounded {
    fn dialect(&self) -> TypeId {
        self.inner.dialect()
    }

    fn parse_prefix(&self, _: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        match self.left.get().checked_sub(1) {
            Some(left) => {
                self.left.set(left);
                None
            }
            None => Some(Err(ParserError::RecursionLimitExceeded)),
        }
    }

    fn supports_named_fn_args_with_expr_name(&self) -> bool {
        false
    }

    /// What begins with these words is nothing else, so what is wrong with it is told.
    fn is_reserved_for_identifier(&self, keyword: Keyword) -> bool {
        matches!(keyword, Keyword::CASE | Keyword::CAST | Keyword::NOT)
            || self.inner.is_reserved_for_identifier(keyword)
    }

    as_postgres! {
        identifier_quote_style(identifier: &str) -> Option<char>;
        is_delimited_identifier_start(ch: char) -> bool;
        is_identifier_start(ch: char) -> bool;
        is_identifier_part(ch: char) -> bool;
        supports_unicode_string_literal() -> bool;
        is_custom_operator_part(ch: char) -> bool;
        get_next_precedence(parser: &Parser<'_>) -> Option<Result<u8, ParserError>>;
        supports_filter_during_aggregation() -> bool;
        supports_group_by_expr() -> bool;
        prec_value(precedence: Precedence) -> u8;
        allow_extract_custom() -> bool;
        allow_extract_single_quotes() -> bool;
        supports_create_index_with_clause() -> bool;
        supports_explain_with_utility_options() -> bool;
        supports_listen_notify() -> bool;
        supports_factorial_operator() -> bool;
        supports_bitwise_shift_operators() -> bool;
        supports_comment_on() -> bool;
        supports_load_extension() -> bool;
        supports_named_fn_args_with_colon_operator() -> bool;
        supports_empty_projections() -> bool;
        supports_nested_comments() -> bool;
        supports_string_escape_constant() -> bool;
        supports_numeric_literal_underscores() -> bool;
        supports_array_typedef_with_brackets() -> bool;
        supports_geometric_types() -> bool;
        supports_set_names() -> bool;
        supports_alter_column_type_using() -> bool;
        supports_notnull_operator() -> bool;
        supports_interval_options() -> bool;
        supports_insert_table_alias() -> bool;
        supports_create_table_like_parenthesized() -> bool;
        supports_select_wildcard_with_alias() -> bool;
        supports_comma_separated_trim() -> bool;
        supports_xml_expressions() -> bool;
        supports_comment_optimizer_hint() -> bool;
    }
}
