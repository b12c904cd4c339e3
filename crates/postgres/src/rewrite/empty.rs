//! Queries that read first of all from a relation that is always empty here: policies,
//! publications, statistics. They have no rows whatever else they say, and psql writes them
//! with constructs that the engine lacks, so they become a query of the same columns.

use super::Rewriter;
use crate::catalog;
use crate::tokens::{Kind, Token};

/// Functions that give a row where there is none.
const AGGREGATES: [&str; 9] =
    ["count", "sum", "avg", "min", "max", "string_agg", "array_agg", "bool_or", "bool_and"];

impl<'a> Rewriter<'a> {
    /// The query to run instead, where every branch of the statement is certain to be empty.
    pub(super) fn empty_statement(&self) -> Option<String> {
        let all: Vec<&Token<'a>> = self.tokens.iter().filter(|t| t.kind != Kind::Space).collect();
        let branches: Vec<&[&Token<'a>]> = split_at_top(&all, |t| t.is("union"));
        let lists: Option<Vec<_>> = branches.into_iter().map(empty_branch).collect();
        let columns = split_at_top(lists?.first()?, |t| t.is_mark(","));
        let mut names: Vec<String> = Vec::new();
        for column in columns {
            let name = column.last().filter(|t| matches!(t.kind, Kind::Word | Kind::Quoted));
            let name = name.map_or_else(|| "?column?".to_owned(), |t| t.value());
            let unique = if names.contains(&name) { format!("{name}_{}", names.len() + 1) } else { name };
            names.push(unique);
        }
        let nulls: Vec<String> =
            names.iter().map(|n| format!("CAST(NULL AS text) AS \"{}\"", n.replace('"', "\"\""))).collect();
        Some(format!("SELECT {} WHERE false", nulls.join(", ")))
    }
}

/// The select list of a branch that has no rows.
fn empty_branch<'b, 'a>(branch: &'b [&'b Token<'a>]) -> Option<&'b [&'b Token<'a>]> {
    let start = branch.iter().position(|t| t.is("select")).filter(|i| *i <= 1)? + 1;
    let list = split_at_top(&branch[start..], |t| t.is("from")).into_iter().next()?;
    let from = branch.get(start + list.len() + 1..)?;
    let relation = match from {
        [schema, dot, name, ..] if schema.is("pg_catalog") && dot.is_mark(".") => name,
        [name, ..] => name,
        [] => return None,
    };
    let gives_rows = outside_subqueries(list).any(|t| AGGREGATES.iter().any(|a| t.is(a)));
    (catalog::is_empty_relation(&relation.value()) && !gives_rows && !list.is_empty()).then_some(list)
}

/// Parts between the separators that stand in no parentheses; separators are left out.
fn split_at_top<'b, 'a>(
    tokens: &'b [&'b Token<'a>],
    is_separator: impl Fn(&Token<'a>) -> bool,
) -> Vec<&'b [&'b Token<'a>]> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0usize);
    for (i, token) in tokens.iter().enumerate() {
        match token.text {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            _ if depth == 0 && is_separator(token) => {
                parts.push(&tokens[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&tokens[start..]);
    parts
}

/// The tokens that stand in no `(SELECT ...)`.
fn outside_subqueries<'b, 'a>(tokens: &'b [&'b Token<'a>]) -> impl Iterator<Item = &'b &'b Token<'a>> {
    let (mut depth, mut inside) = (0usize, None);
    tokens.iter().enumerate().filter_map(move |(i, token)| {
        match token.text {
            "(" => {
                if inside.is_none() && tokens.get(i + 1).is_some_and(|t| t.is("select")) {
                    inside = Some(depth);
                }
                depth += 1;
            }
            ")" => {
                depth = depth.saturating_sub(1);
                if inside == Some(depth) {
                    inside = None;
                }
            }
            _ => {}
        }
        inside.is_none().then_some(token)
    })
}
