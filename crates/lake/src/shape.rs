//! The size of a statement before anything works on it: how deep, how large, and how often the
//! engine will have to plan each of its parts.
//!
//! Parser, planner, optimiser and the evaluation of an expression follow a statement level by
//! level on the thread's stack, and a few kilobytes of text make thousands of levels: a chain of
//! `+` nests to the left, and so do `::int`, `IS NULL`, `UNION ALL` and joins. So the words of a
//! text are counted before it is parsed (a text with more words gets a larger stack, see
//! `stack`), and its levels afterwards. Common table expressions are planned anew at each
//! place that names them; ten that name the one before twice make a thousand copies. They are
//! counted as often as they are named.
//!
//! Long lists that a program wrote (`a = 1 OR a = 2 OR ...`, `UNION ALL`) are balanced before, so that
//! they are no deeper than they need to be (see `balance`).

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::error::DataFusionError;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, Ident, ObjectName, Query, Select, SetExpr, Statement as SqlStatement, Visit, Visitor,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use levada_core::Problem;

use crate::answer::{problem, syntax, too_deep, too_large};

/// Longer texts are refused unread.
pub(crate) const SQL_BYTES: usize = 256 * 1024;

/// Words and marks of a statement; each can make a level. Commas, numbers, texts and
/// parentheses make none and are not counted.
pub(crate) const MAX_WORDS: usize = 32_768;
/// Types such as `int[][]` and `array<array<int>>` nest at most so deep.
const MAX_TYPE_LEVELS: usize = 50;
/// Levels of nested expressions, queries, joins and sides of set operations. The stack would bear
/// many more; what the planner does with names grows with the cube of the levels.
pub(crate) const MAX_LEVELS: usize = 250;
/// Sets that GROUP BY with CUBE, ROLLUP and GROUPING SETS comes to.
const MAX_GROUPING_SETS: u64 = 1_000;
/// Levels of WITH inside the queries of WITH. The engine reads each of them twice as often as the
/// one around it.
const MAX_WITH_LEVELS: usize = 8;
/// Expressions, counted as often as the engine plans them.
pub(crate) const MAX_EXPRESSIONS: u64 = 150_000;
/// Tables and queries, counted as often as the engine plans them.
pub(crate) const MAX_RELATIONS: u64 = 1_000;
/// Statements with more words than this are planned and run on a large stack.
const PLAIN_WORDS: usize = 400;

/// How much stack a statement may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    Plain,
    /// A large stack of its own, given back when the statement ends.
    Heavy,
}

/// Looks at the text only, without recursion.
///
/// # Errors
/// `sql-syntax` for what is no text of SQL, `sql-too-large` for more words than [`MAX_WORDS`],
/// `sql-too-deep` for deeply nested types.
pub(crate) fn weigh(sql: &str) -> Result<Weight, Problem> {
    if sql.len() > SQL_BYTES {
        return Err(syntax(format!("the statement is longer than {SQL_BYTES} bytes")));
    }
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize();
    let tokens = tokens.map_err(|error| problem(&DataFusionError::from(ParserError::from(error))))?;
    let (mut words, mut brackets, mut angles) = (0_usize, 0_usize, 0_usize);
    let mut last = &Token::EOF;
    for token in tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_))) {
        words += usize::from(makes_a_level(token));
        brackets += usize::from((last, token) == (&Token::LBracket, &Token::RBracket));
        angles += usize::from(*token == Token::Lt && is_array(last));
        last = token;
    }
    if words > MAX_WORDS {
        return Err(too_large(&format!("it has {words} words and operators, and {MAX_WORDS} are allowed")));
    }
    if brackets.max(angles) > MAX_TYPE_LEVELS {
        return Err(too_deep(&format!("its types nest deeper than {MAX_TYPE_LEVELS} levels")));
    }
    Ok(if words > PLAIN_WORDS { Weight::Heavy } else { Weight::Plain })
}

/// Whether the parser may nest at this token. Parentheses are bounded by the parser itself.
fn makes_a_level(token: &Token) -> bool {
    match token {
        Token::Word(word) => !matches!(word.keyword, Keyword::NULL | Keyword::TRUE | Keyword::FALSE),
        Token::Number(..) | Token::Comma | Token::LParen | Token::RParen | Token::SemiColon => false,
        Token::SingleQuotedString(_)
        | Token::EscapedStringLiteral(_)
        | Token::NationalStringLiteral(_)
        | Token::HexStringLiteral(_)
        | Token::DollarQuotedString(_)
        | Token::UnicodeStringLiteral(_)
        | Token::EOF => false,
        _ => true,
    }
}

fn is_array(token: &Token) -> bool {
    matches!(token, Token::Word(word) if word.keyword == Keyword::ARRAY)
}

/// What a parsed statement comes to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    pub levels: usize,
    pub expressions: u64,
    pub relations: u64,
}

/// Measures a statement.
///
/// # Errors
/// `sql-too-deep` and `sql-too-large`, with the bound that it passes.
pub(crate) fn check(statement: &SqlStatement) -> Result<Shape, Problem> {
    let mut measure = Measure { level: 0, frames: vec![Frame::default()], times: 1 };
    if let ControlFlow::Break(problem) = statement.visit(&mut measure) {
        return Err(*problem);
    }
    let whole = measure.frames.pop().unwrap_or_default();
    Ok(whole.shape())
}

/// The measure of a statement of any kind.
///
/// # Errors
/// As [`check`].
pub(crate) fn of(statement: &Statement) -> Result<Shape, Problem> {
    match statement {
        Statement::Statement(inner) => check(inner),
        _ => Ok(Shape::default()),
    }
}

/// What is counted of one query while it is visited.
#[derive(Debug, Default)]
struct Frame {
    base: usize,
    deepest: usize,
    expressions: u64,
    relations: u64,
    windows: usize,
    /// The name under which the query above can be named, if it is a common table expression.
    named: Option<String>,
    /// Common table expressions that are still to be visited, by their address.
    coming: HashMap<*const Query, String>,
    known: HashMap<String, Shape>,
}

impl Frame {
    fn shape(&self) -> Shape {
        let levels = self.deepest.saturating_sub(self.base);
        Shape { levels, expressions: self.expressions, relations: self.relations }
    }

    fn add(&mut self, shape: Shape) {
        self.expressions = self.expressions.saturating_add(shape.expressions);
        self.relations = self.relations.saturating_add(shape.relations);
    }
}

struct Measure {
    level: usize,
    frames: Vec<Frame>,
    /// How often the engine plans what is being visited.
    times: u64,
}

impl Measure {
    fn frame(&mut self) -> &mut Frame {
        if self.frames.is_empty() {
            self.frames.push(Frame::default());
        }
        self.frames.last_mut().expect("there is one")
    }

    fn deepen(&mut self, levels: usize) -> ControlFlow<Box<Problem>> {
        self.level += levels;
        self.reach(self.level)
    }

    fn reach(&mut self, level: usize) -> ControlFlow<Box<Problem>> {
        let frame = self.frame();
        frame.deepest = frame.deepest.max(level);
        match level > MAX_LEVELS {
            true => ControlFlow::Break(Box::new(too_deep(&format!(
                "operators, queries and joins nest deeper than {MAX_LEVELS} levels"
            )))),
            false => ControlFlow::Continue(()),
        }
    }

    fn count(&mut self, shape: Shape) -> ControlFlow<Box<Problem>> {
        let times = self.times;
        self.frame().add(Shape {
            expressions: shape.expressions.saturating_mul(times),
            relations: shape.relations.saturating_mul(times),
            ..shape
        });
        let all = self.frames.iter().fold(Shape::default(), |mut sum, frame| {
            sum.expressions = sum.expressions.saturating_add(frame.expressions);
            sum.relations = sum.relations.saturating_add(frame.relations);
            sum
        });
        let what = if all.relations > MAX_RELATIONS {
            format!("it comes to more than {MAX_RELATIONS} tables and queries")
        } else if all.expressions > MAX_EXPRESSIONS {
            format!("it comes to more than {MAX_EXPRESSIONS} expressions")
        } else {
            return ControlFlow::Continue(());
        };
        ControlFlow::Break(Box::new(too_large(&what)))
    }
}

impl Visitor for Measure {
    type Break = Box<Problem>;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        let named = self.frame().coming.remove(&std::ptr::from_ref(query));
        let defined = self.frames.iter().filter(|frame| frame.named.is_some()).count();
        if query.with.is_some() && defined + usize::from(named.is_some()) > MAX_WITH_LEVELS {
            let what = format!("WITH inside of WITH nests deeper than {MAX_WITH_LEVELS} levels");
            return ControlFlow::Break(Box::new(too_deep(&what)));
        }
        let coming = query.with.iter().flat_map(|with| &with.cte_tables);
        let coming = coming.map(|cte| (std::ptr::from_ref(&*cte.query), name_of(&cte.alias.name)));
        let frame = Frame { base: self.level, named, coming: coming.collect(), ..Frame::default() };
        self.frames.push(frame);
        let sides = sides(&query.body);
        self.count(Shape { relations: sides as u64, ..Shape::default() })?;
        self.deepen(sides)
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        self.level = self.level.saturating_sub(sides(&query.body));
        let Some(done) = self.frames.pop() else { return ControlFlow::Continue(()) };
        let shape = done.shape();
        let above = self.frame();
        match done.named {
            Some(name) => {
                above.known.insert(name, shape);
            }
            None => {
                above.deepest = above.deepest.max(done.deepest);
                above.add(shape);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Self::Break> {
        if grouping_sets(select) > MAX_GROUPING_SETS {
            let what = format!("it groups by more than {MAX_GROUPING_SETS} sets of columns");
            return ControlFlow::Break(Box::new(too_large(&what)));
        }
        self.deepen(joined(select))
    }

    fn post_visit_select(&mut self, select: &Select) -> ControlFlow<Self::Break> {
        self.level = self.level.saturating_sub(joined(select));
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<Self::Break> {
        let one = Shape { relations: 1, ..Shape::default() };
        let name = match relation.0.as_slice() {
            [only] => only.as_ident().map(name_of),
            _ => None,
        };
        let named = name.and_then(|name| self.frames.iter().rev().find_map(|f| f.known.get(&name).copied()));
        match named {
            Some(shape) => {
                self.count(shape)?;
                self.reach(self.level + shape.levels)
            }
            None => self.count(one),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        self.count(Shape { expressions: 1, ..Shape::default() })?;
        self.times = self.times.saturating_mul(copies_of_operands(expr));
        if matches!(expr, Expr::Function(function) if function.over.is_some()) {
            // Each may be a step of the plan of its own, above those before it.
            self.frame().windows += 1;
            if self.frame().windows > MAX_LEVELS {
                let what = format!("a query has more than {MAX_LEVELS} window functions");
                return ControlFlow::Break(Box::new(too_large(&what)));
            }
        }
        self.deepen(levels_of(expr))
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        self.level = self.level.saturating_sub(levels_of(expr));
        self.times /= copies_of_operands(expr);
        ControlFlow::Continue(())
    }
}

/// Functions that the planner puts into words which name an argument more than once.
const REPEATING: [&str; 8] = ["coalesce", "nvl", "ifnull", "nvl2", "nullif", "map", "make_map", "struct"];

/// How often the planner repeats the operands of an expression.
fn copies_of_operands(expr: &Expr) -> u64 {
    match expr {
        Expr::Function(function) => match function.name.0.as_slice() {
            [part] => {
                let name = part.as_ident().map(name_of).unwrap_or_default();
                if REPEATING.contains(&name.as_str()) { 2 } else { 1 }
            }
            _ => 1,
        },
        // A short list is a chain of comparisons.
        Expr::InList { list, .. } if (2..=3).contains(&list.len()) => list.len() as u64,
        Expr::Between { .. } | Expr::InSubquery { negated: true, .. } => 2,
        _ => 1,
    }
}

fn name_of(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

/// The levels that one expression makes by itself.
fn levels_of(expr: &Expr) -> usize {
    match expr {
        Expr::CompoundFieldAccess { access_chain, .. } => 1 + access_chain.len(),
        Expr::CompoundIdentifier(parts) => parts.len(),
        _ => 1,
    }
}

/// The length of the chain of set operations, at least one.
fn sides(body: &SetExpr) -> usize {
    let (mut body, mut length) = (body, 1);
    while let SetExpr::SetOperation { left, .. } = body {
        (body, length) = (left, length + 1);
    }
    length
}

/// In how many ways a SELECT groups its rows: the lists of GROUP BY multiply.
fn grouping_sets(select: &Select) -> u64 {
    let GroupByExpr::Expressions(list, _) = &select.group_by else { return 1 };
    let sets = list.iter().map(|expr| match expr {
        Expr::Cube(columns) => 1_u64.checked_shl(u32::try_from(columns.len()).unwrap_or(u32::MAX)),
        Expr::Rollup(columns) => Some(columns.len() as u64 + 1),
        Expr::GroupingSets(sets) => Some(sets.len() as u64),
        _ => Some(1),
    });
    sets.fold(1, |product, sets| product.saturating_mul(sets.unwrap_or(u64::MAX)))
}

/// The levels of the relations that a SELECT joins one after the other: two for each but the first,
/// since the time for a join's plan grows with the columns of all before it.
fn joined(select: &Select) -> usize {
    let relations: usize = select.from.iter().map(|from| 1 + from.joins.len()).sum();
    (2 * relations).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement;

    fn shape(sql: &str) -> Result<Shape, String> {
        statement::parse(sql).and_then(|parsed| of(&parsed)).map_err(|p| p.code)
    }

    #[test]
    fn generated_lists_are_shallow() {
        let ors = (0..4000).map(|i| format!("a = {i}")).collect::<Vec<_>>().join(" or ");
        let unions = vec!["select 1"; 300].join(" union all ");
        for sql in [format!("select {ors}"), unions] {
            // Heavy texts are parsed on a large stack by those who run them.
            let measured = crate::stack::on_large_stack(Weight::Heavy, || Ok(shape(&sql))).expect("a thread");
            let levels = measured.expect("a shape").levels;
            assert!(levels < 60, "{levels}: {}", &sql[..60]);
        }
    }

    #[test]
    fn every_reference_of_a_common_table_counts() {
        let doubling = |levels: usize| {
            let mut sql = "with c0 as (select 1 as x)".to_owned();
            for i in 1..=levels {
                sql.push_str(&format!(", c{i} as (select a.x from c{0} a, c{0} b)", i - 1));
            }
            sql.push_str(&format!(" select * from c{levels}"));
            sql
        };
        assert!(shape(&doubling(6)).expect("six levels").relations > 64);
        assert_eq!(shape(&doubling(26)), Err("sql-too-large".into()));
        let chained: String = (1..200).map(|i| format!(", c{i} as (select * from c{})", i - 1)).collect();
        let chained = format!("with c0 as (select 1){chained} select * from c199");
        let refused = crate::stack::on_large_stack(Weight::Heavy, || Ok(shape(&chained))).expect("a thread");
        assert_eq!(refused, Err("sql-too-deep".into()));
    }

    #[test]
    fn texts_are_weighed_by_what_can_nest() {
        let numbers = vec!["'it''s'"; 20_000].join(",");
        assert_eq!(weigh(&format!("select * from t where a in ({numbers})")), Ok(Weight::Plain));
        assert_eq!(weigh(&format!("select 1{}", "+1".repeat(500))), Ok(Weight::Heavy));
        assert_eq!(
            weigh(&format!("select 1{}", "+1".repeat(40_000))).map_err(|p| p.code),
            Err("sql-too-large".into())
        );
        assert_eq!(
            weigh(&format!("select 1::int{}", "[]".repeat(60))).map_err(|p| p.code),
            Err("sql-too-deep".into())
        );
        let deep = format!("select cast(x as {}int{})", "array <".repeat(60), ">".repeat(60));
        assert_eq!(weigh(&deep).map_err(|p| p.code), Err("sql-too-deep".into()));
    }
}
