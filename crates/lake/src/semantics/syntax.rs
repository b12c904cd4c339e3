//! What of PostgreSQL's syntax the engine reads otherwise, or passes over, put into words that
//! it follows; what cannot be is refused. Done on the parsed tree, before any table is looked at.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, CharacterLength, DataType, ExactNumberInfo, Expr, Fetch, Function, FunctionArg,
    FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, LimitClause, ObjectName, OrderBy, Query,
    Select, SetExpr, SetOperator, SetQuantifier, Statement as SqlStatement, TableFactor, TableSample,
    TableSampleKind, TableSampleMethod, UnaryOperator, Value, ValueWithSpan, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use levada_core::Problem;

use super::aliases::by_first_name;
use super::{ambiguous, patterns};

/// The most digits that a decimal of the engine holds.
const MAX_DIGITS: usize = 76;

/// Rewrites a statement in place.
///
/// # Errors
/// `sql-unsupported` for a clause that would be passed over.
pub(crate) fn settle_syntax(statement: &mut Statement) -> Result<(), Problem> {
    match statement {
        Statement::Statement(inner) => settle_sql(inner),
        Statement::Explain(explain) => settle_syntax(&mut explain.statement),
        _ => Ok(()),
    }
}

fn settle_sql(statement: &mut SqlStatement) -> Result<(), Problem> {
    match statement.visit(&mut Settler { level: 0 }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(problem) => Err(*problem),
    }
}

#[derive(Debug)]
struct Settler {
    /// Expressions around the place of the visit.
    level: usize,
}

type Flow = ControlFlow<Box<Problem>>;

fn refused(what: &str, mend: &str) -> Flow {
    let problem = Problem::new(400, "sql-unsupported", format!("not supported: {what}"));
    ControlFlow::Break(Box::new(problem.hint(mend)))
}

fn clear(select: &Select, order: Option<&OrderBy>) -> Flow {
    match ambiguous::check_select(select, order) {
        Ok(()) => ControlFlow::Continue(()),
        Err(problem) => ControlFlow::Break(Box::new(problem)),
    }
}

impl VisitorMut for Settler {
    type Break = Box<Problem>;

    fn pre_visit_query(&mut self, query: &mut Query) -> Flow {
        if query.for_clause.is_some() || query.settings.is_some() || query.format_clause.is_some() {
            return refused("a clause after the query that PostgreSQL does not have", "leave it out");
        }
        if let SetExpr::SetOperation {
            op: SetOperator::Except | SetOperator::Intersect | SetOperator::Minus,
            set_quantifier: SetQuantifier::All,
            ..
        } = query.body.as_ref()
        {
            return refused("EXCEPT ALL and INTERSECT ALL", "number equal rows with row_number() first");
        }
        if let SetExpr::Select(select) = query.body.as_ref() {
            clear(select, query.order_by.as_ref())?;
        }
        let Some(fetch) = query.fetch.take() else { return ControlFlow::Continue(()) };
        let Fetch { with_ties, percent, quantity } = fetch;
        if with_ties || percent {
            return refused("FETCH with ties or percent", "rank the rows with rank() and filter on it");
        }
        let rows = Some(quantity.unwrap_or_else(|| Expr::value(Value::Number("1".to_owned(), false))));
        match &mut query.limit_clause {
            None => {
                let (offset, limit_by) = (None, Vec::new());
                query.limit_clause = Some(LimitClause::LimitOffset { limit: rows, offset, limit_by });
            }
            Some(LimitClause::LimitOffset { limit: limit @ None, .. }) => *limit = rows,
            Some(_) => return refused("LIMIT beside FETCH", "use one of them"),
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> Flow {
        let ignored = select.prewhere.is_some()
            || !select.connect_by.is_empty()
            || !select.distribute_by.is_empty()
            || select.value_table_mode.is_some();
        match ignored {
            true => refused("a clause of SELECT that PostgreSQL does not have", "leave it out"),
            false => clear(select, None),
        }
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> Flow {
        match factor {
            TableFactor::Table { with_ordinality: true, .. }
            | TableFactor::UNNEST { with_ordinality: true, .. }
            | TableFactor::Function { with_ordinality: true, .. } => {
                refused("WITH ORDINALITY", "number the rows with row_number() over ()")
            }
            TableFactor::Table { version: Some(_), .. } => {
                refused("a table as of another time", "leave the clause out")
            }
            TableFactor::Derived { sample: Some(_), .. } => {
                refused("TABLESAMPLE of a subquery", "sample the table inside it")
            }
            TableFactor::Table { name, alias, args: None, sample: Some(sample), .. } => {
                let (TableSampleKind::BeforeTableAlias(sample) | TableSampleKind::AfterTableAlias(sample)) =
                    sample;
                let share = match share(sample) {
                    Ok(share) => share,
                    Err(why) => {
                        return refused(&why, "write TABLESAMPLE BERNOULLI (10), the share in percent");
                    }
                };
                let called = match alias {
                    Some(alias) => alias.to_string(),
                    None => format!("AS {}", name.0.last().map(ToString::to_string).unwrap_or_default()),
                };
                let text = format!("(SELECT * FROM {name} WHERE random() < {share}) {called}");
                let parsed = Parser::new(&PostgreSqlDialect {})
                    .try_with_sql(&text)
                    .and_then(|mut parser| parser.parse_table_factor());
                match parsed {
                    Ok(sampled) => *factor = sampled,
                    Err(_) => return refused("TABLESAMPLE of this table", "give the table an alias"),
                }
                ControlFlow::Continue(())
            }
            TableFactor::Table { sample: Some(_), .. } => {
                refused("TABLESAMPLE of a function", "filter on random() instead")
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_expr(&mut self, _: &mut Expr) -> Flow {
        self.level += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        self.level = self.level.saturating_sub(1);
        let taken = std::mem::replace(expr, Expr::value(Value::Null));
        *expr = match taken {
            Expr::AtTimeZone { timestamp, time_zone } => call("timezone", vec![*time_zone, *timestamp]),
            Expr::SimilarTo { negated, expr: text, pattern, escape_char } => {
                let mut args = vec![*pattern];
                args.extend(escape_char.map(Expr::Value));
                let pattern = Box::new(call("similar_to_escape", args));
                let op = if negated { BinaryOperator::PGRegexNotMatch } else { BinaryOperator::PGRegexMatch };
                let matches = Expr::BinaryOp { left: text, op, right: pattern };
                Expr::Nested(Box::new(matches))
            }
            Expr::Value(literal) => match &literal.value {
                Value::Number(digits, _) => number(digits).unwrap_or(Expr::Value(literal)),
                _ => Expr::Value(literal),
            },
            Expr::Extract { field, expr: time, .. } => {
                let field = Expr::value(Value::SingleQuotedString(field.to_string().to_lowercase()));
                call("date_part", vec![field, *time])
            }
            Expr::BinaryOp { left, op: BinaryOperator::PGExp, right } => call("power", vec![*left, *right]),
            Expr::BinaryOp { left, op, right } if is_regex(&op) => {
                Expr::BinaryOp { left, op, right: Box::new(with_text(*right, patterns::regex)) }
            }
            Expr::UnaryOp { op, expr: inner } => unary(op, *inner),
            Expr::Function(function) if self.level > 0 => remainder(by_first_name(function)),
            Expr::Function(function) => remainder(function),
            Expr::Like { negated, any, expr: text, pattern, escape_char: Some(escape) } => {
                match escaped(*pattern, &escape) {
                    Ok(pattern) => {
                        Expr::Like { negated, any, expr: text, pattern: Box::new(pattern), escape_char: None }
                    }
                    Err(why) => return refused(&why, "use the escape character \\"),
                }
            }
            Expr::ILike { negated, any, expr: text, pattern, escape_char: Some(escape) } => {
                match escaped(*pattern, &escape) {
                    Ok(pattern) => Expr::ILike {
                        negated,
                        any,
                        expr: text,
                        pattern: Box::new(pattern),
                        escape_char: None,
                    },
                    Err(why) => return refused(&why, "use the escape character \\"),
                }
            }
            Expr::TypedString(typed) => match (&typed.value.value, is_plain_numeric(&typed.data_type)) {
                (Value::SingleQuotedString(_), true) => numeric(Expr::Value(typed.value)),
                (Value::SingleQuotedString(text), false) => cast(
                    Expr::value(Value::SingleQuotedString(literal_of(text, &typed.data_type))),
                    typed.data_type,
                ),
                _ => Expr::TypedString(typed),
            },
            Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, expr: inner, data_type, .. }
                if matches!(data_type, DataType::Bytea) && bytes_of(&inner).is_some() =>
            {
                bytes_of(&inner).unwrap_or(*inner)
            }
            Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, expr: inner, data_type, .. }
                if text_length(&data_type).is_some() =>
            {
                shortened(*inner, &data_type)
            }
            Expr::Cast {
                kind: CastKind::Cast | CastKind::DoubleColon,
                expr: inner,
                data_type,
                array,
                format,
            } => match is_plain_numeric(&data_type) {
                true => numeric(*inner),
                false => {
                    let inner = Box::new(with_text(*inner, |text| literal_of(text, &data_type)));
                    Expr::Cast { kind: CastKind::Cast, expr: inner, data_type, array, format }
                }
            },
            other => other,
        };
        ControlFlow::Continue(())
    }
}

fn is_regex(op: &BinaryOperator) -> bool {
    use BinaryOperator as B;
    matches!(op, B::PGRegexMatch | B::PGRegexIMatch | B::PGRegexNotMatch | B::PGRegexNotIMatch)
}

/// A text literal put through `change`; anything else as it is.
fn with_text(expr: Expr, change: impl Fn(&str) -> String) -> Expr {
    match &expr {
        Expr::Value(literal) => match &literal.value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => {
                Expr::value(Value::SingleQuotedString(change(text)))
            }
            _ => expr,
        },
        _ => expr,
    }
}

/// `mod(a, b)` is the operator.
fn remainder(function: Function) -> Expr {
    let is_mod = function.name.to_string().eq_ignore_ascii_case("mod");
    let operands = match &function.args {
        FunctionArguments::List(list) if is_mod => match list.args.as_slice() {
            [
                FunctionArg::Unnamed(FunctionArgExpr::Expr(left)),
                FunctionArg::Unnamed(FunctionArgExpr::Expr(right)),
            ] => Some((left.clone(), right.clone())),
            _ => None,
        },
        _ => None,
    };
    match operands {
        Some((left, right)) => {
            let nested = |expr| Box::new(Expr::Nested(Box::new(expr)));
            let op = BinaryOperator::Modulo;
            Expr::Nested(Box::new(Expr::BinaryOp { left: nested(left), op, right: nested(right) }))
        }
        None => Expr::Function(function),
    }
}

/// PostgreSQL's operators before an operand.
fn unary(op: UnaryOperator, inner: Expr) -> Expr {
    match op {
        UnaryOperator::PGSquareRoot => call("sqrt", vec![inner]),
        UnaryOperator::PGCubeRoot => call("cbrt", vec![inner]),
        UnaryOperator::PGAbs => call("abs", vec![inner]),
        UnaryOperator::BitwiseNot => Expr::Nested(Box::new(Expr::BinaryOp {
            left: Box::new(Expr::value(Value::Number("-1".to_owned(), false))),
            op: BinaryOperator::Minus,
            right: Box::new(Expr::Nested(Box::new(inner))),
        })),
        op => Expr::UnaryOp { op, expr: Box::new(inner) },
    }
}

/// A LIKE pattern with the engine's escape character.
fn escaped(pattern: Expr, escape: &ValueWithSpan) -> Result<Expr, String> {
    let Value::SingleQuotedString(escape) = &escape.value else {
        return Err("this escape of LIKE".to_owned());
    };
    let mut chars = escape.chars();
    let escape = match (chars.next(), chars.next()) {
        (Some('\\'), None) => return Ok(pattern),
        (escape, None) => escape,
        _ => return Err("an escape of LIKE with more than one character".to_owned()),
    };
    match &pattern {
        Expr::Value(literal) if matches!(literal.value, Value::SingleQuotedString(_)) => {
            Ok(with_text(pattern, |text| patterns::with_backslash(text, escape)))
        }
        _ => Err("another escape than \\ of a LIKE pattern that is no constant".to_owned()),
    }
}

/// The length of VARCHAR(n) and CHAR(n), and whether shorter texts are padded.
fn text_length(of: &DataType) -> Option<(u64, bool)> {
    let (length, is_padded) = match of {
        DataType::Varchar(length) | DataType::CharacterVarying(length) | DataType::CharVarying(length) => {
            (length.as_ref()?, false)
        }
        DataType::Char(length) | DataType::Character(length) => (length.as_ref()?, true),
        _ => return None,
    };
    match length {
        CharacterLength::IntegerLength { length, .. } => Some((*length, is_padded)),
        CharacterLength::Max => None,
    }
}

/// A cast to a text of limited length, which cuts what is longer.
fn shortened(inner: Expr, of: &DataType) -> Expr {
    let Some((length, is_padded)) = text_length(of) else { return inner };
    let length = || Expr::value(Value::Number(length.to_string(), false));
    let text = cast(inner, DataType::Text);
    match is_padded {
        true => call("rpad", vec![text, length()]),
        false => call("left", vec![text, length()]),
    }
}

/// A text that is cast to a time, with the seconds that the engine wants.
fn literal_of(text: &str, of: &DataType) -> String {
    match of {
        DataType::Timestamp(..) | DataType::Datetime(_) => patterns::with_seconds(text),
        _ => text.to_owned(),
    }
}

/// The bytes of a literal such as `\\x41`.
fn bytes_of(expr: &Expr) -> Option<Expr> {
    let Expr::Value(literal) = plain(expr) else { return None };
    let Value::SingleQuotedString(text) = &literal.value else { return None };
    let digits = text.strip_prefix("\\x")?;
    let is_hex = digits.len() % 2 == 0 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    is_hex.then(|| Expr::value(Value::HexStringLiteral(digits.to_owned())))
}

/// The share of rows that a sample keeps, between 0 and 1.
fn share(sample: &TableSample) -> Result<String, String> {
    if !matches!(sample.name, Some(TableSampleMethod::Bernoulli | TableSampleMethod::System)) {
        return Err("this method of TABLESAMPLE".to_owned());
    }
    if sample.seed.is_some() || sample.bucket.is_some() || sample.offset.is_some() {
        return Err("TABLESAMPLE with REPEATABLE, since files change their order".to_owned());
    }
    let quantity = sample.quantity.as_ref().filter(|quantity| quantity.unit.is_none());
    let percent = quantity.and_then(|quantity| match plain(&quantity.value) {
        Expr::Value(literal) => match &literal.value {
            Value::Number(digits, _) => digits.parse::<f64>().ok(),
            _ => None,
        },
        _ => None,
    });
    match percent.filter(|percent| (0.0..=100.0).contains(percent)) {
        Some(percent) => Ok(format!("{:?}", percent / 100.0)),
        None => Err("a share of TABLESAMPLE that is no number from 0 to 100".to_owned()),
    }
}

fn plain(expr: &Expr) -> &Expr {
    match expr {
        Expr::Nested(inner) => plain(inner),
        other => other,
    }
}

fn is_plain_numeric(of: &DataType) -> bool {
    matches!(
        of,
        DataType::Numeric(ExactNumberInfo::None)
            | DataType::Decimal(ExactNumberInfo::None)
            | DataType::Dec(ExactNumberInfo::None)
    )
}

/// `x::numeric`: a literal keeps its own digits; anything else is a function that knows its type.
fn numeric(inner: Expr) -> Expr {
    let text = match plain(&inner) {
        Expr::Value(literal) => match &literal.value {
            Value::SingleQuotedString(text) => Some(text.trim().to_owned()),
            Value::Number(digits, _) => Some(digits.clone()),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match plain(expr) {
            Expr::Value(literal) => match &literal.value {
                Value::Number(digits, _) => Some(format!("-{digits}")),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    };
    match text.as_deref().and_then(Decimal::parse).and_then(|decimal| decimal.literal()) {
        Some(literal) => literal,
        None => call("numeric", vec![inner]),
    }
}

/// What stands for a number that the engine would read as a float or as one without sign.
fn number(digits: &str) -> Option<Expr> {
    let digits: String = digits.chars().filter(|c| *c != '_').collect();
    let has_exponent = digits.contains(['e', 'E']) && !digits.starts_with("0x");
    let is_whole = digits.bytes().all(|b| b.is_ascii_digit());
    let is_long = is_whole && digits.parse::<i64>().is_err();
    let is_open = digits.starts_with('.') || digits.ends_with('.');
    if !has_exponent && !is_long && !is_open {
        return None;
    }
    let decimal = Decimal::parse(&digits)?;
    decimal.literal().or_else(|| {
        // Beyond what a decimal holds: the nearest float, as an explicit one.
        let value = digits.parse::<f64>().ok().filter(|value| value.is_finite())?;
        Some(cast(Expr::value(Value::SingleQuotedString(format!("{value:e}"))), DataType::DoublePrecision))
    })
}

/// Digits of a decimal number, with the point `scale` places from their right end.
struct Decimal {
    negative: bool,
    digits: String,
    scale: usize,
}

impl Decimal {
    fn parse(text: &str) -> Option<Self> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, exponent) = match text.find(['e', 'E']) {
            Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits = format!("{whole}{fraction}");
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let mut scale = i64::try_from(fraction.len()).ok()? - i64::from(exponent);
        let room = i64::try_from(MAX_DIGITS * 8).ok()?;
        if !(-room..=room).contains(&scale) {
            return None;
        }
        while scale < 0 {
            digits.push('0');
            scale += 1;
        }
        let scale = usize::try_from(scale).ok()?;
        let kept = digits.trim_start_matches('0').len().max(scale).max(1);
        while digits.len() < kept {
            digits.insert(0, '0');
        }
        let digits = digits.split_off(digits.len() - kept);
        Some(Self { negative, digits, scale })
    }

    /// A literal of exactly these digits, if a decimal holds them.
    fn literal(&self) -> Option<Expr> {
        if self.digits.len() > MAX_DIGITS {
            return None;
        }
        let (whole, fraction) = self.digits.split_at(self.digits.len() - self.scale);
        let sign = if self.negative { "-" } else { "" };
        let point = if fraction.is_empty() { "" } else { "." };
        let whole = if whole.is_empty() { "0" } else { whole };
        let text = Expr::value(Value::SingleQuotedString(format!("{sign}{whole}{point}{fraction}")));
        let size = ExactNumberInfo::PrecisionAndScale(
            u64::try_from(self.digits.len()).ok()?,
            i64::try_from(self.scale).ok()?,
        );
        Some(cast(text, DataType::Decimal(size)))
    }
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

fn call(name: &str, args: Vec<Expr>) -> Expr {
    let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}
