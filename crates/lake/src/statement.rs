//! Which statements pass: reading ones, by an allow-list, checked on the parsed tree.

use std::ops::ControlFlow;

use datafusion::common::format::ExplainStatementOptions;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{
    Query, Select, SetExpr, Statement as SqlStatement, TableFactor, Visit, Visitor,
};
use levada_core::Problem;

use crate::answer::{not_allowed, problem, syntax};
use crate::dialect::Bounded;
use crate::{balance, semantics, shape};

const NESTING: usize = 50;
/// Functions in FROM that read nothing but their arguments.
const TABLE_FUNCTIONS: [&str; 3] = ["generate_series", "range", "unnest"];

/// Parses one statement and refuses whatever does not only read.
pub(crate) fn parse(sql: &str) -> Result<Statement, Problem> {
    shape::weigh(sql)?;
    let dialect = Bounded::for_text(sql);
    let parsed = DFParserBuilder::new(sql)
        .with_dialect(&dialect)
        .with_recursion_limit(NESTING)
        .build()
        .and_then(|mut parser| parser.parse_statements());
    let mut statements = parsed.map_err(|error| problem(&error))?;
    match (statements.pop_front(), statements.is_empty()) {
        (None, _) => Err(syntax("there is no statement")),
        (Some(_), false) => Err(not_allowed("more than one statement at once")),
        (Some(mut statement), true) => {
            balance::flatten(&mut statement);
            check(&statement)?;
            semantics::settle_syntax(&mut statement)?;
            Ok(statement)
        }
    }
}

/// The same for the SQL of a pipeline or a model: a query and nothing else.
pub(crate) fn parse_query(sql: &str) -> Result<Statement, Problem> {
    let statement = parse(sql)?;
    match &statement {
        Statement::Statement(inner) if matches!(**inner, SqlStatement::Query(_)) => Ok(statement),
        _ => Err(not_allowed("a statement other than SELECT").hint("write one SELECT")),
    }
}

fn check(statement: &Statement) -> Result<(), Problem> {
    match statement {
        Statement::Statement(inner) => check_sql(inner),
        Statement::Explain(explain) => {
            if explain.options != ExplainStatementOptions::default() {
                // Measured figures count rows that belong to others.
                return Err(not_allowed("EXPLAIN with options"));
            }
            match &*explain.statement {
                Statement::Statement(inner) if matches!(**inner, SqlStatement::Query(_)) => check_sql(inner),
                _ => Err(not_allowed("EXPLAIN of anything but a query")),
            }
        }
        Statement::CreateExternalTable(_) => Err(not_allowed("CREATE EXTERNAL TABLE")),
        Statement::CopyTo(_) => Err(not_allowed("COPY")),
        Statement::Reset(_) => Err(not_allowed("RESET")),
    }
}

fn check_sql(statement: &SqlStatement) -> Result<(), Problem> {
    match statement {
        SqlStatement::Query(_)
        | SqlStatement::ShowTables { .. }
        | SqlStatement::ShowColumns { .. }
        | SqlStatement::ExplainTable { .. } => {}
        other => return Err(not_allowed(&leading_words(other))),
    }
    shape::check(statement)?;
    match statement.visit(&mut ReadOnly) {
        ControlFlow::Break(what) => Err(not_allowed(&what)),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// The keywords a statement begins with, for the answer.
fn leading_words(statement: &SqlStatement) -> String {
    let text = statement.to_string();
    text.split_whitespace()
        .take_while(|word| word.chars().all(|c| c.is_ascii_uppercase()))
        .take(3)
        .collect::<Vec<_>>()
        .join(" ")
}

struct ReadOnly;

impl Visitor for ReadOnly {
    type Break = String;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<String> {
        if !query.locks.is_empty() {
            return ControlFlow::Break("FOR UPDATE".into());
        }
        match &*query.body {
            SetExpr::Insert(_) => ControlFlow::Break("INSERT".into()),
            SetExpr::Update(_) => ControlFlow::Break("UPDATE".into()),
            SetExpr::Delete(_) => ControlFlow::Break("DELETE".into()),
            SetExpr::Merge(_) => ControlFlow::Break("MERGE".into()),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<String> {
        if select.into.is_some() {
            ControlFlow::Break("SELECT INTO".into())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn pre_visit_statement(&mut self, statement: &SqlStatement) -> ControlFlow<String> {
        match statement {
            SqlStatement::Query(_)
            | SqlStatement::ShowTables { .. }
            | SqlStatement::ShowColumns { .. }
            | SqlStatement::ExplainTable { .. } => ControlFlow::Continue(()),
            other => ControlFlow::Break(leading_words(other)),
        }
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<String> {
        let function = match factor {
            TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. } => {
                name.to_string().to_ascii_lowercase()
            }
            TableFactor::TableFunction { .. } => "TABLE(...)".to_owned(),
            TableFactor::OpenJsonTable { .. } | TableFactor::XmlTable { .. } => {
                "this table function".to_owned()
            }
            _ => return ControlFlow::Continue(()),
        };
        match TABLE_FUNCTIONS.contains(&function.as_str()) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(format!("the table function `{function}`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_passes() {
        for sql in [
            "select 1",
            "with a as (select 1 as x) select * from a union all select 2",
            "select * from generate_series(1, 3)",
            "select * from unnest([1, 2])",
            "values (1), (2)",
            "explain select * from gold.a",
            "show tables",
            "describe gold.a",
            "show columns from gold.a",
            "select * from gold.a;",
        ] {
            assert!(parse(sql).is_ok(), "{sql}: {:?}", parse(sql).err());
        }
    }

    #[test]
    fn everything_else_does_not() {
        for sql in [
            "insert into gold.a values (1)",
            "update gold.a set x = 1",
            "delete from gold.a",
            "create table x as select 1",
            "create view v as select 1",
            "create external table x stored as csv location '/etc/passwd'",
            "create schema s",
            "create function f() returns int as 'select 1'",
            "drop table gold.a",
            "alter table gold.a add column x int",
            "truncate table gold.a",
            "copy (select 1) to '/tmp/x.csv'",
            "copy gold.a from '/etc/passwd'",
            "set datafusion.execution.batch_size = 1",
            "reset datafusion.execution.batch_size",
            "show all",
            "show datafusion.execution.batch_size",
            "begin",
            "commit",
            "prepare p as select 1",
            "execute p",
            "deallocate p",
            "explain analyze select 1",
            "explain verbose select 1",
            "explain format tree select 1",
            "explain (analyze) select 1",
            "explain insert into gold.a values (1)",
            "explain explain select 1",
            "select 1; select 2",
            "select 1; drop table gold.a",
            "select * into x from gold.a",
            "select * from gold.a for update",
            "select * from read_csv('/etc/passwd')",
            "select * from parquet_metadata('x')",
            "with x as (insert into gold.a values (1) returning *) select * from x",
            "with x as (delete from gold.a returning *) select * from x",
            "select * from (select * from read_json('x')) t",
            "select (select max(a) from read_csv('x'))",
            "vacuum",
            "analyze gold.a",
            "call f()",
            "declare c cursor for select 1",
            "listen x",
            "kill query 1",
            "merge into gold.a using gold.b on true when matched then delete",
            "",
            "selec 1",
        ] {
            let refused = parse(sql).expect_err(sql);
            assert!(["sql-not-allowed", "sql-syntax"].contains(&refused.code.as_str()), "{sql}: {refused}");
        }
    }

    #[test]
    fn deep_and_long_texts_are_refused_not_crashed_on() {
        let deep = format!("select {}1{}", "(".repeat(5000), ")".repeat(5000));
        assert_eq!(parse(&deep).map_err(|p| p.code), Err("sql-too-deep".into()));
        assert!(parse(&format!("select '{}'", "x".repeat(shape::SQL_BYTES))).is_err());
    }

    #[test]
    fn what_the_parser_would_read_twice_on_every_level_is_read_once_or_refused() {
        for (open, close) in [("abs(", ")"), ("coalesce(", ",2)"), ("(select ", ")"), ("make_array(", ")")] {
            let nested = |levels| format!("select {}1{}", open.repeat(levels), close.repeat(levels));
            assert!(parse(&nested(15)).is_ok(), "{open}");
            let began = std::time::Instant::now();
            let answer = parse(&nested(45)).map(drop).map_err(|p| p.code);
            let told = answer
                .as_ref()
                .err()
                .is_none_or(|code| ["sql-too-deep", "sql-too-large"].contains(&code.as_str()));
            assert!(told, "{open}: {answer:?}");
            assert!(began.elapsed() < std::time::Duration::from_secs(5), "{open}: {:?}", began.elapsed());
        }
    }
}
