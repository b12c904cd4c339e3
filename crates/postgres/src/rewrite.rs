//! What tools ask of PostgreSQL's catalogue, put into words that the lake knows.
//!
//! Clients call functions such as `pg_table_is_visible` and `format_type`, cast to
//! `regclass` and write operators as `OPERATOR(pg_catalog.~)`. Those are replaced in the
//! text, token by token, by constants and plain expressions; the relations of `pg_catalog`
//! are small tables in memory (see `catalog`). A statement that names none of them is not
//! touched at all.

mod empty;

use crate::catalog;
use crate::tokens::{Kind, Token, nesting, significant, tokens};

/// What replacements depend on.
pub(crate) struct Facts<'a> {
    pub user: &'a str,
    pub database: &'a str,
    pub number: i32,
    pub setting: &'a dyn Fn(&str) -> Option<String>,
    /// The number of a table, from its name.
    pub oid_of: &'a dyn Fn(&str) -> i64,
}

pub(crate) struct Rewritten {
    pub sql: String,
    /// Whether relations of `pg_catalog` are read.
    pub needs_catalog: bool,
}

const NULL: &str = "CAST(NULL AS text)";
/// Parentheses of a statement that is rewritten nest at most so deep.
const MAX_NESTING: usize = 100;

/// Names without parentheses that stand for a value.
const VALUES: [&str; 6] =
    ["current_user", "session_user", "current_role", "current_catalog", "current_schema", "current_database"];
/// Functions that make a statement one about the catalogue, besides all that begin with `pg_`.
const MARKERS: [&str; 14] = [
    "version",
    "current_schemas",
    "current_setting",
    "set_config",
    "format_type",
    "obj_description",
    "col_description",
    "shobj_description",
    "quote_ident",
    "regclass",
    "regtype",
    "regproc",
    "inet_server_addr",
    "inet_server_port",
];

/// Rewrites one statement.
pub(crate) fn rewrite(sql: &str, facts: &Facts<'_>) -> Rewritten {
    let all = tokens(sql);
    // What nests deeper is refused by the lake; here each level would be one on the stack.
    if !all.iter().any(is_marker) || nesting(&all) > MAX_NESTING {
        return Rewritten { sql: sql.to_owned(), needs_catalog: false };
    }
    let mut rewriter = Rewriter {
        tokens: &all,
        facts,
        needs_catalog: false,
        levels: vec![Level::default()],
        aliases: Vec::new(),
    };
    if let Some(sql) = rewriter.empty_statement() {
        return Rewritten { sql, needs_catalog: false };
    }
    let sql = rewriter.range(0, all.len());
    Rewritten { sql, needs_catalog: rewriter.needs_catalog }
}

fn is_marker(token: &Token<'_>) -> bool {
    token.kind == Kind::Word && {
        let word = token.text.to_ascii_lowercase();
        word.starts_with("pg_")
            || (word.starts_with("has_") && word.ends_with("_privilege"))
            || VALUES.contains(&word.as_str())
            || MARKERS.contains(&word.as_str())
    }
}

/// Whether a level of parentheses is within the list of a SELECT.
#[derive(Debug, Clone, Copy, Default)]
struct Level {
    selecting: bool,
}

struct Rewriter<'a> {
    tokens: &'a [Token<'a>],
    facts: &'a Facts<'a>,
    needs_catalog: bool,
    levels: Vec<Level>,
    /// Names given to replaced items so far: the engine wants them all different.
    aliases: Vec<String>,
}

impl<'a> Rewriter<'a> {
    /// The next token from `i` that is not space.
    fn at(&self, mut i: usize) -> Option<(usize, &'a Token<'a>)> {
        while let Some(token) = self.tokens.get(i) {
            if token.kind != Kind::Space {
                return Some((i, token));
            }
            i += 1;
        }
        None
    }

    fn before(&self, i: usize) -> Option<&'a Token<'a>> {
        self.tokens[..i].iter().rev().find(|t| t.kind != Kind::Space)
    }

    fn is_mark_at(&self, i: usize, mark: &str) -> Option<usize> {
        self.at(i).filter(|(_, t)| t.is_mark(mark)).map(|(i, _)| i)
    }

    /// The index of the `)` that closes the `(` at `open`.
    fn closing(&self, open: usize) -> Option<usize> {
        let mut depth = 0;
        for (i, token) in self.tokens.iter().enumerate().skip(open) {
            if token.is_mark("(") {
                depth += 1;
            } else if token.is_mark(")") {
                depth -= 1;
                if depth == 0 {
                    return Some(i);
                }
            }
        }
        None
    }

    fn range(&mut self, from: usize, to: usize) -> String {
        let mut out = String::new();
        let mut i = from;
        while i < to {
            i = self.step(i, &mut out);
        }
        out
    }

    /// Emits what stands at `i` and answers where to go on.
    fn step(&mut self, i: usize, out: &mut String) -> usize {
        let token = &self.tokens[i];
        let done = match token.kind {
            Kind::Word => self.word(i, out),
            Kind::Text => self.regclass(i, out),
            Kind::Mark => self.mark(i, out),
            _ => None,
        };
        done.unwrap_or_else(|| {
            out.push_str(token.text);
            i + 1
        })
    }

    fn word(&mut self, i: usize, out: &mut String) -> Option<usize> {
        let token = &self.tokens[i];
        let word = token.text.to_ascii_lowercase();
        let level = self.levels.last_mut()?;
        match word.as_str() {
            "select" => level.selecting = true,
            "from" | "where" | "group" | "having" | "order" | "limit" | "union" => level.selecting = false,
            _ => {}
        }
        match word.as_str() {
            "pg_catalog" => return self.qualified(i, out),
            "operator" => return self.operator(i, out),
            "collate" => return self.name_end(self.at(i + 1)?.0),
            "array" => {
                let open = self.is_mark_at(i + 1, "(")?;
                self.at(open + 1).filter(|(_, t)| t.is("select"))?;
                out.push_str(NULL);
                return Some(self.closing(open)? + 1);
            }
            _ => {}
        }
        let before = self.before(i);
        if before.is_some_and(|t| t.is_mark(".")) {
            return None;
        }
        if let Some(open) = self.is_mark_at(i + 1, "(") {
            return self.call(&word, i, open, out);
        }
        if self.is_mark_at(i + 1, ".").is_some() {
            return None;
        }
        if VALUES.contains(&word.as_str()) && word != "current_database" {
            let value = self.function(&word, &[])?;
            out.push_str(&value);
            self.alias(i, i + 1, &word, out);
            return Some(i + 1);
        }
        let is_source = before.is_some_and(|t| t.is("from") || t.is("join") || t.is_mark(","));
        if is_source && catalog::is_relation(&word) {
            self.needs_catalog = true;
            out.push_str("pg_catalog.");
            out.push_str(&word);
            return Some(i + 1);
        }
        None
    }

    /// `pg_catalog.` before a function, a type, a relation or something else.
    fn qualified(&mut self, i: usize, out: &mut String) -> Option<usize> {
        let dot = self.is_mark_at(i + 1, ".")?;
        let (at, name) = self.at(dot + 1)?;
        let word = name.value().to_ascii_lowercase();
        if let Some(open) = self.is_mark_at(at + 1, "(") {
            let called = self.call(&word, i, open, out);
            return called.or_else(|| {
                out.push_str(name.text);
                Some(at + 1)
            });
        }
        if self.before(i).is_some_and(|t| t.is("as")) {
            out.push_str(plain_type(&word).unwrap_or(name.text));
            return Some(at + 1);
        }
        if catalog::is_relation(&word) {
            self.needs_catalog = true;
            out.push_str("pg_catalog.");
        }
        out.push_str(name.text);
        Some(at + 1)
    }

    /// `OPERATOR(pg_catalog.~)`
    fn operator(&self, i: usize, out: &mut String) -> Option<usize> {
        let open = self.is_mark_at(i + 1, "(")?;
        let close = self.closing(open)?;
        let dot = self.tokens[open..close].iter().rposition(|t| t.is_mark(".")).map_or(open, |d| open + d);
        out.push(' ');
        out.extend(self.tokens[dot + 1..close].iter().map(|t| t.text));
        out.push(' ');
        Some(close + 1)
    }

    /// The end of a name of one or more parts that begins at `i`.
    fn name_end(&self, i: usize) -> Option<usize> {
        let mut end = i + 1;
        while let Some(dot) = self.is_mark_at(end, ".") {
            end = self.at(dot + 1)?.0 + 1;
        }
        Some(end)
    }

    /// `'name'::regclass` is the table's number.
    fn regclass(&mut self, i: usize, out: &mut String) -> Option<usize> {
        let cast = self.is_mark_at(i + 1, "::")?;
        let (start, _) = self.at(cast + 1)?;
        let end = self.name_end(start)?;
        if !self.tokens[end - 1].is("regclass") {
            return None;
        }
        let oid = (self.facts.oid_of)(&self.tokens[i].value());
        out.push_str(&oid.to_string());
        Some(end)
    }

    fn mark(&mut self, i: usize, out: &mut String) -> Option<usize> {
        let token = &self.tokens[i];
        match token.text {
            "(" => {
                if let Some(end) = self.empty_subquery(i) {
                    out.push_str(NULL);
                    self.alias(i, end, "?column?", out);
                    return Some(end);
                }
                self.levels.push(Level::default());
                None
            }
            ")" => {
                if self.levels.len() > 1 {
                    self.levels.pop();
                }
                None
            }
            "::" => self.cast(i, out),
            _ => None,
        }
    }

    /// Casts to PostgreSQL's own types become casts to plain ones, or go.
    fn cast(&self, i: usize, out: &mut String) -> Option<usize> {
        let (start, _) = self.at(i + 1)?;
        let end = self.name_end(start)?;
        let name = &self.tokens[end - 1];
        let word = name.value().to_ascii_lowercase();
        let after_array = |end: usize| match (self.tokens.get(end), self.tokens.get(end + 1)) {
            (Some(open), Some(close)) if open.is_mark("[") && close.is_mark("]") => end + 2,
            _ => end,
        };
        if word.starts_with("reg") && word != "regexp" {
            return Some(after_array(end));
        }
        match plain_type(&word) {
            Some(plain) => {
                out.push_str("::");
                out.push_str(plain);
                Some(after_array(end))
            }
            None if end - start > 1 => {
                out.push_str("::");
                out.push_str(name.text);
                Some(end)
            }
            None => None,
        }
    }

    /// A subquery in a list whose first relation is always empty: its value is NULL. The engine
    /// wants scalar subqueries to be aggregates, which these are not.
    fn empty_subquery(&self, open: usize) -> Option<usize> {
        self.at(open + 1).filter(|(_, t)| t.is("select"))?;
        self.before(open).filter(|t| t.is_mark(",") || t.is("select") || t.is("then") || t.is("else"))?;
        let close = self.closing(open)?;
        let mut depth = 0;
        for i in open..close {
            let token = &self.tokens[i];
            match token.text {
                "(" => depth += 1,
                ")" => depth -= 1,
                _ if depth == 1 && token.is("from") => {
                    let (mut at, mut name) = self.at(i + 1)?;
                    if name.is("pg_catalog") {
                        let dot = self.is_mark_at(at + 1, ".")?;
                        (at, name) = self.at(dot + 1)?;
                    }
                    let _ = at;
                    return catalog::is_empty_relation(&name.value()).then_some(close + 1);
                }
                _ => {}
            }
        }
        None
    }

    /// A call of a function that has a replacement.
    fn call(&mut self, name: &str, start: usize, open: usize, out: &mut String) -> Option<usize> {
        let close = self.closing(open)?;
        let replaced = is_replaced(name) || (name == "array_to_string" && self.is_of_lists(open, close));
        if !replaced {
            return None;
        }
        let mut args = Vec::new();
        let (mut from, mut depth) = (open + 1, 0);
        self.levels.push(Level::default());
        for i in open + 1..=close {
            let token = &self.tokens[i];
            let ends = i == close || (depth == 0 && token.is_mark(","));
            if ends {
                let arg = self.range(from, i);
                if !arg.trim().is_empty() {
                    args.push(arg.trim().to_owned());
                }
                from = i + 1;
            } else if token.is_mark("(") {
                depth += 1;
            } else if token.is_mark(")") {
                depth -= 1;
            }
        }
        self.levels.pop();
        let value = self.function(name, &args)?;
        out.push_str(&value);
        self.alias(start, close + 1, name, out);
        Some(close + 1)
    }

    /// Whether the arguments name a column that is an array in PostgreSQL and text here.
    fn is_of_lists(&self, open: usize, close: usize) -> bool {
        let ends = ["acl", "options", "config"];
        self.tokens[open..close]
            .iter()
            .any(|t| t.kind == Kind::Word && ends.iter().any(|e| t.text.ends_with(e)))
    }

    /// Gives a replaced item of a SELECT list the name it would have had.
    fn alias(&mut self, start: usize, end: usize, name: &str, out: &mut String) {
        let selecting = self.levels.last().is_some_and(|level| level.selecting);
        let begins = self.before(start).is_some_and(|t| t.is("select") || t.is_mark(",") || t.is("distinct"));
        let ends = self
            .at(end)
            .is_none_or(|(_, t)| t.is("from") || t.is_mark(",") || t.is_mark(";") || t.is_mark(")"));
        if selecting && begins && ends {
            let before = self.aliases.iter().filter(|used| *used == name).count();
            self.aliases.push(name.to_owned());
            match before {
                0 => out.push_str(&format!(" AS {}", identifier(name))),
                n => out.push_str(&format!(" AS {}", identifier(&format!("{name}_{}", n + 1)))),
            }
        }
    }

    /// The schemas of the search path that there are.
    fn schemas(&self) -> Vec<String> {
        let path = (self.facts.setting)("search_path").unwrap_or_default();
        let named = significant(&path).into_iter().filter(|t| t.kind != Kind::Mark).map(|t| t.value());
        named.filter(|name| ["gold", "silver", "bronze"].contains(&name.as_str())).collect()
    }

    /// What stands for a function's value; arguments are rewritten already.
    fn function(&self, name: &str, args: &[String]) -> Option<String> {
        let arg = |i: usize| args.get(i).map_or("NULL", String::as_str);
        let facts = self.facts;
        Some(match name {
            "version" => {
                let version = (facts.setting)("server_version").unwrap_or_default();
                literal(&format!("PostgreSQL {version}"))
            }
            "current_user" | "session_user" | "current_role" | "pg_get_userbyid" => literal(facts.user),
            "current_database" | "current_catalog" => literal(facts.database),
            "current_schema" => match self.schemas().first() {
                Some(schema) => literal(schema),
                None => NULL.to_owned(),
            },
            "current_schemas" => {
                let mut schemas = self.schemas();
                if arg(0).eq_ignore_ascii_case("true") {
                    schemas.insert(0, "pg_catalog".to_owned());
                }
                let schemas: Vec<String> = schemas.iter().map(|schema| literal(schema)).collect();
                format!("make_array({})", schemas.join(", "))
            }
            "current_setting" => match (facts.setting)(&unquoted(arg(0))) {
                Some(value) => literal(&value),
                None => NULL.to_owned(),
            },
            "set_config" => arg(1).to_owned(),
            "quote_ident" => arg(0).to_owned(),
            "format_type" => catalog::format_type(arg(0)),
            "pg_backend_pid" => facts.number.to_string(),
            "pg_encoding_to_char" => literal("UTF8"),
            "pg_char_to_encoding" => "6".to_owned(),
            "pg_tablespace_location" => literal(""),
            "pg_postmaster_start_time" | "pg_conf_load_time" => "now()".to_owned(),
            "pg_is_in_recovery" | "pg_is_other_temp_schema" | "pg_relation_is_publishable" => {
                "false".to_owned()
            }
            "pg_my_temp_schema" => "0".to_owned(),
            "to_regclass" => (facts.oid_of)(&unquoted(arg(0))).to_string(),
            _ if name.ends_with("_is_visible") || name.ends_with("_privilege") => "true".to_owned(),
            _ if name.ends_with("_size") || name.starts_with("pg_stat_get_") => {
                "CAST(0 AS bigint)".to_owned()
            }
            _ => NULL.to_owned(),
        })
    }
}

fn is_replaced(name: &str) -> bool {
    const PLAIN: [&str; 11] = [
        "version",
        "current_database",
        "current_schema",
        "current_schemas",
        "current_setting",
        "set_config",
        "format_type",
        "quote_ident",
        "inet_server_addr",
        "inet_server_port",
        "to_regclass",
    ];
    PLAIN.contains(&name)
        || matches!(name, "obj_description" | "col_description" | "shobj_description")
        || (name.starts_with("pg_") && !matches!(name, "pg_typeof"))
        || (name.starts_with("has_") && name.ends_with("_privilege"))
}

/// The plain type that stands for one of PostgreSQL's own.
fn plain_type(name: &str) -> Option<&'static str> {
    Some(match name {
        "char" | "name" | "text" | "bpchar" | "aclitem" | "oidvector" | "int2vector" | "pg_node_tree"
        | "anyarray" => "text",
        "oid" | "xid" | "cid" | "xid8" => "bigint",
        _ => return None,
    })
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn unquoted(sql: &str) -> String {
    tokens(sql).first().map(Token::value).unwrap_or_default()
}

/// A name that is a word of the language needs quotes.
fn identifier(name: &str) -> String {
    format!("\"{name}\"")
}

#[cfg(test)]
mod tests;
