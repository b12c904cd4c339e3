//! What a statement is about: the lake, the session, or a cursor.
//!
//! Statements about the session are answered here and change nothing but the session.
//! Everything else goes to the lake, which allows reading only.

use crate::settings::Until;
use crate::tokens::{Kind, Token, significant};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Statement {
    /// For the lake.
    Query,
    Set {
        name: String,
        value: String,
        until: Until,
    },
    /// `None` resets all.
    Reset(Option<String>),
    /// `SHOW name`, or `SHOW ALL`.
    Show(String),
    Begin,
    Commit,
    Rollback,
    /// Accepted, with this tag, since it changes nothing that matters here.
    Accepted(&'static str),
    /// The query begins at this byte of the text.
    Declare {
        cursor: String,
        query_at: usize,
        hold: Hold,
    },
    Fetch {
        cursor: String,
        rows: Rows,
    },
    /// Like `Fetch`, with the rows left out.
    Move {
        cursor: String,
        rows: Rows,
    },
    /// `None` closes all.
    CloseCursor(Option<String>),
    /// `None` forgets all prepared statements.
    Deallocate(Option<String>),
    Discard,
    /// Known to PostgreSQL and not offered here.
    Refused {
        what: String,
        hint: &'static str,
    },
}

/// How long a cursor lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    Transaction,
    Session,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    Next(u64),
    All,
}

impl Rows {
    /// How many, at most.
    pub fn limit(self) -> Option<u64> {
        match self {
            Rows::Next(n) => Some(n),
            Rows::All => None,
        }
    }
}

/// Recognises a statement by its first words.
pub(crate) fn classify(sql: &str) -> Statement {
    let all = significant(sql);
    let Some((first, rest)) = all.split_first() else { return Statement::Accepted("") };
    let word = first.text.to_ascii_lowercase();
    if first.kind != Kind::Word {
        return Statement::Query;
    }
    match word.as_str() {
        "set" => set(rest),
        "reset" => match rest {
            [time, zone] if time.is("time") && zone.is("zone") => {
                Statement::Reset(Some("timezone".to_owned()))
            }
            [session, ..] if session.is("session") => {
                Statement::Reset(Some("session_authorization".to_owned()))
            }
            _ => Statement::Reset(rest.first().filter(|t| !t.is("all")).map(|_| name_of(rest).0)),
        },
        "show" => show(rest),
        "begin" | "start" => Statement::Begin,
        "commit" | "end" => Statement::Commit,
        "rollback" | "abort" => match rest.iter().any(|t| t.is("to")) {
            true => Statement::Accepted("ROLLBACK"),
            false => Statement::Rollback,
        },
        "savepoint" => Statement::Accepted("SAVEPOINT"),
        "release" => Statement::Accepted("RELEASE"),
        "unlisten" => Statement::Accepted("UNLISTEN"),
        "discard" => Statement::Discard,
        "deallocate" => {
            let named = rest.iter().find(|t| !t.is("prepare"));
            Statement::Deallocate(named.filter(|t| !t.is("all")).map(Token::value))
        }
        "declare" => declare(rest),
        "fetch" => fetch(rest).map_or(Statement::Query, |(cursor, rows)| Statement::Fetch { cursor, rows }),
        "move" => fetch(rest).map_or(Statement::Query, |(cursor, rows)| Statement::Move { cursor, rows }),
        "close" => Statement::CloseCursor(rest.first().filter(|t| !t.is("all")).map(Token::value)),
        "prepare" | "execute" => Statement::Refused {
            what: word.to_uppercase(),
            hint: "let the driver prepare statements: the protocol's own Parse and Bind work",
        },
        "listen" | "notify" => {
            Statement::Refused { what: word.to_uppercase(), hint: "subscribe to a topic instead" }
        }
        "copy" => Statement::Refused {
            what: "COPY".to_owned(),
            hint: "export with POST /v1/sql and `Accept: text/csv`; events come in through POST /v1/events",
        },
        "lock" => Statement::Refused { what: "LOCK".to_owned(), hint: "this door is read-only" },
        _ => Statement::Query,
    }
}

/// `SET [SESSION|LOCAL] name {TO|=} value`, `SET TIME ZONE value`, `SET TRANSACTION ...`.
fn set(rest: &[Token<'_>]) -> Statement {
    let until = match rest.first() {
        Some(t) if t.is("local") => Until::Transaction,
        _ => Until::Session,
    };
    let rest = match rest.first() {
        Some(t) if t.is("session") || t.is("local") => &rest[1..],
        _ => rest,
    };
    let is = |i: usize, word: &str| rest.get(i).is_some_and(|t| t.is(word));
    if is(0, "characteristics") || is(0, "transaction") || is(0, "constraints") {
        return Statement::Accepted("SET");
    }
    let to = |i: usize| usize::from(is(i, "to") || rest.get(i).is_some_and(|t| t.is_mark("=")));
    let (name, at) = if is(0, "time") && is(1, "zone") {
        ("timezone".to_owned(), 2)
    } else if is(0, "names") {
        ("client_encoding".to_owned(), 1)
    } else if is(0, "authorization") {
        ("session_authorization".to_owned(), 1)
    } else if rest.is_empty() {
        return Statement::Query;
    } else {
        let (name, length) = name_of(rest);
        (name, length + to(length))
    };
    let values = rest.get(at..).unwrap_or_default();
    let value = match values {
        [interval, offset, ..] if interval.is("interval") => hours(&offset.value()),
        _ => value_of(&name, values),
    };
    Statement::Set { name, value, until }
}

/// The name of a setting, and how many tokens it is: one of an extension has a dot in it.
fn name_of(rest: &[Token<'_>]) -> (String, usize) {
    let part = |i: usize| rest.get(i).map(Token::value).unwrap_or_default().to_ascii_lowercase();
    match rest.get(1).is_some_and(|t| t.is_mark(".")) {
        true => (format!("{}.{}", part(0), part(2)), 3),
        false => (part(0), 1),
    }
}

/// The values of a setting as one text, with commas between them.
fn value_of(name: &str, tokens: &[Token<'_>]) -> String {
    let is_names = name == "search_path";
    let mut out = String::new();
    for token in tokens {
        match token.kind {
            Kind::Mark if token.is_mark(",") => out.push_str(", "),
            Kind::Quoted if is_names => out.push_str(token.text),
            Kind::Text if is_names => {
                let plain = token.value().bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
                let quote = if plain { "" } else { "\"" };
                out.push_str(&format!("{quote}{}{quote}", token.value()));
            }
            _ => out.push_str(&token.value()),
        }
    }
    out
}

/// `-08:00` as the number of hours that `SET TIME ZONE` takes too.
fn hours(offset: &str) -> String {
    let (sign, digits) = match offset.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", offset.trim_start_matches('+')),
    };
    let (hours, minutes) = digits.split_once(':').unwrap_or((digits, "0"));
    match (hours.parse::<f64>(), minutes.parse::<f64>()) {
        (Ok(hours), Ok(minutes)) => format!("{sign}{}", hours + minutes / 60.0),
        _ => offset.to_owned(),
    }
}

/// `SHOW name`; `SHOW TABLES` and `SHOW COLUMNS` are the lake's.
fn show(rest: &[Token<'_>]) -> Statement {
    let Some(first) = rest.first() else { return Statement::Query };
    let lakes = ["tables", "columns", "schemas", "databases", "functions", "create", "full", "extended"];
    if lakes.iter().any(|word| first.is(word)) {
        return Statement::Query;
    }
    if first.is("time") {
        return Statement::Show("timezone".to_owned());
    }
    if first.is("transaction") {
        return Statement::Show("transaction_isolation".to_owned());
    }
    Statement::Show(rest.iter().map(Token::value).collect::<String>().to_ascii_lowercase())
}

/// `DECLARE name [BINARY] [INSENSITIVE] [[NO] SCROLL] CURSOR [WITH|WITHOUT HOLD] FOR query`
fn declare(rest: &[Token<'_>]) -> Statement {
    let scroll = rest.windows(2).any(|w| w[1].is("scroll") && !w[0].is("no"));
    let marker = rest.iter().position(|t| t.is("for"));
    match (rest.first(), marker.and_then(|i| rest.get(i + 1))) {
        (Some(_), Some(_)) if scroll => Statement::Refused {
            what: "a cursor that scrolls backwards".to_owned(),
            hint: "declare it without SCROLL, and sort the query the way you want to read it",
        },
        (Some(name), Some(query)) => {
            let held = rest.windows(2).any(|w| w[0].is("with") && w[1].is("hold") && w[1].at < query.at);
            let hold = if held { Hold::Session } else { Hold::Transaction };
            Statement::Declare { cursor: name.value(), query_at: query.at, hold }
        }
        _ => Statement::Query,
    }
}

/// `FETCH [FORWARD] [n|ALL|NEXT] [FROM|IN] name`
fn fetch(rest: &[Token<'_>]) -> Option<(String, Rows)> {
    let (name, before) = rest.split_last()?;
    let mut rows = Rows::Next(1);
    for token in before {
        if token.is("all") {
            rows = Rows::All;
        } else if token.kind == Kind::Number {
            rows = Rows::Next(token.text.parse().ok()?);
        } else if !["forward", "next", "from", "in"].iter().any(|w| token.is(w)) {
            return None;
        }
    }
    Some((name.value(), rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_of(name: &str, value: &str) -> Statement {
        Statement::Set { name: name.to_owned(), value: value.to_owned(), until: Until::Session }
    }

    #[test]
    fn what_clients_send_at_login_is_recognised() {
        for (sql, expected) in [
            ("SET extra_float_digits = 3", set_of("extra_float_digits", "3")),
            ("SET application_name = 'DBeaver; x'", set_of("application_name", "DBeaver; x")),
            ("set session TimeZone to 'UTC'", set_of("timezone", "UTC")),
            ("SET TIME ZONE 'Europe/Vienna'", set_of("timezone", "Europe/Vienna")),
            ("SET datestyle TO ISO, MDY", set_of("datestyle", "iso, mdy")),
            ("SET names 'utf8'", set_of("client_encoding", "utf8")),
            ("SET TIME ZONE -7", set_of("timezone", "-7")),
            ("SET TIME ZONE INTERVAL '-08:30' HOUR TO MINUTE", set_of("timezone", "-8.5")),
            ("SET search_path = a, \"B c\", 'd e'", set_of("search_path", "a, \"B c\", \"d e\"")),
            ("SET my.tenant TO 'x'", set_of("my.tenant", "x")),
            ("SET ROLE none", set_of("role", "none")),
            ("SET SESSION AUTHORIZATION default", set_of("session_authorization", "default")),
            ("RESET TIME ZONE", Statement::Reset(Some("timezone".into()))),
            ("RESET my.tenant", Statement::Reset(Some("my.tenant".into()))),
            ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", Statement::Accepted("SET")),
            ("BEGIN ISOLATION LEVEL REPEATABLE READ", Statement::Begin),
            ("start transaction", Statement::Begin),
            ("/* ping */ COMMIT", Statement::Commit),
            ("ROLLBACK", Statement::Rollback),
            ("ROLLBACK TO SAVEPOINT a", Statement::Accepted("ROLLBACK")),
            ("SHOW TRANSACTION ISOLATION LEVEL", Statement::Show("transaction_isolation".into())),
            ("show search_path", Statement::Show("search_path".into())),
            ("SHOW TABLES", Statement::Query),
            ("DISCARD ALL", Statement::Discard),
            ("DEALLOCATE ALL", Statement::Deallocate(None)),
            ("DEALLOCATE PREPARE \"_pg3_0\"", Statement::Deallocate(Some("_pg3_0".into()))),
            ("RESET ALL", Statement::Reset(None)),
            ("SELECT 1", Statement::Query),
            ("(SELECT 1)", Statement::Query),
            ("WITH a AS (SELECT 1) SELECT * FROM a", Statement::Query),
            ("INSERT INTO a VALUES (1)", Statement::Query),
        ] {
            assert_eq!(classify(sql), expected, "{sql}");
        }
    }

    #[test]
    fn cursors() {
        let sql = "DECLARE \"my c\" NO SCROLL CURSOR WITHOUT HOLD FOR SELECT 1";
        let Statement::Declare { cursor, query_at, hold } = classify(sql) else { panic!("a cursor") };
        assert_eq!((cursor.as_str(), &sql[query_at..], hold), ("my c", "SELECT 1", Hold::Transaction));
        let held = classify("declare c cursor with hold for select 1");
        assert!(matches!(held, Statement::Declare { hold: Hold::Session, .. }));
        assert!(matches!(classify("DECLARE c SCROLL CURSOR FOR SELECT 1"), Statement::Refused { .. }));
        for (sql, rows) in [
            ("FETCH FORWARD 100 FROM \"c\"", Rows::Next(100)),
            ("FETCH ALL IN c", Rows::All),
            ("FETCH FORWARD ALL FROM c", Rows::All),
            ("FETCH c", Rows::Next(1)),
            ("fetch next from c", Rows::Next(1)),
        ] {
            assert_eq!(classify(sql), Statement::Fetch { cursor: "c".into(), rows }, "{sql}");
        }
        assert_eq!(classify("FETCH BACKWARD 1 FROM c"), Statement::Query, "the lake refuses it");
        assert_eq!(classify("CLOSE ALL"), Statement::CloseCursor(None));
    }
}
