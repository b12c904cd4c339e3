//! Short statements that ask for much memory: each is answered, the memory of the query is never
//! passed by much, and the pool is empty afterwards. And what is guarded answers right.

use std::time::Duration;

use super::*;

/// So much may a query hold here.
const MEMORY_BYTES: usize = 64 << 20;

fn doubled(first: &str, twice: &str, levels: usize) -> String {
    let mut sql = format!("with c0 as ({first})");
    for i in 0..levels {
        sql.push_str(&format!(", c{} as (select {twice} as x from c{i})", i + 1));
    }
    format!("{sql} select max(length(x)) from c{levels}")
}

fn hungry() -> Vec<(&'static str, String)> {
    let rows = "from generate_series(1, 100000) g";
    let mut filters = "with c0 as (select value as x from range(0, 9))".to_owned();
    for i in 0..30 {
        filters.push_str(&format!(", c{} as (select x + x as x from c{i})", i + 1));
    }
    let mut all: Vec<(&'static str, String)> = [
        ("range", "select array_length(range(0, 1000000000))"),
        ("generate_series", "select array_length(generate_series(0, 1000000000))"),
        (
            "a range of days",
            "select array_length(range(date '0001-01-01', date '9999-01-01', interval '1 minute'))",
        ),
        ("repeat", "select length(repeat('x', 2000000000))"),
        ("repeat of repeat", "select length(repeat(repeat(repeat('x', 10000), 10000), 10000))"),
        ("lpad", "select length(lpad('x', 2000000000, 'y'))"),
        ("rpad", "select length(rpad('x', 2000000000))"),
        ("array_repeat", "select array_length(array_repeat('x', 1000000000))"),
        ("array_repeat of arrays", "select array_length(array_repeat(array_repeat('x', 60000), 60000))"),
        ("array_resize", "select array_length(array_resize(make_array(1), 1000000000, 7))"),
        ("replace", "select length(replace(repeat('x', 1000000), 'x', repeat('y', 1000000)))"),
        (
            "regexp_replace",
            "select length(regexp_replace(repeat('x', 100000), 'x', repeat('y', 100000), 'g'))",
        ),
        ("array_to_string", "select length(array_to_string(range(0, 100000), repeat('y', 100000)))"),
        ("array_concat", "select array_length(array_concat(range(0, 1000000), range(0, 8000000)))"),
    ]
    .into_iter()
    .map(|(name, sql)| (name, sql.to_owned()))
    .collect();
    let many = vec!["repeat('x', 60000)"; 200].join(" || ");
    all.extend([
        ("repeat of each row", format!("select max(length(repeat('x', value))) {rows}")),
        ("repeat of a constant for each row", format!("select max(length(repeat('x', 1000000))) {rows}")),
        ("a constant for each row", format!("select count(distinct x) from (select repeat('x', 60000) as x, value {rows}) t")),
        ("string_agg", format!("select length(string_agg(repeat('x', 60000), '')) {rows}")),
        ("string_agg of numbers", "select length(string_agg(value::text, ',')) from generate_series(1, 50000000) g".to_owned()),
        ("array_agg", "select array_length(array_agg(value)) from generate_series(1, 50000000) g".to_owned()),
        ("doubling", doubled("select 'xxxxxxxx' as x", "x || x", 30)),
        ("doubling by concat", doubled("select 'xxxxxxxx' as x", "concat(x, x)", 30)),
        ("doubling by replacing", doubled("select 'xx' as x", "regexp_replace(x, 'x', 'xx', 'g')", 30)),
        ("doubling of rows", doubled("select value::text as x from generate_series(1, 5) g", "x || x || x || x", 25)),
        ("many at once, each of many rows", format!("select max(length({many})) {rows}")),
        ("a wide row joined", "select max(length(x)) from (select repeat('x', 9000000) as x) a, generate_series(1, 100000) g".to_owned()),
        ("a wide row unnested", "select max(length(x)) from (select unnest(range(0, 1000000)), repeat('x', 60000) as x) t".to_owned()),
        ("a wide row in a window", format!("select max(length(m)) from (select max(x) over () as m from (select repeat('x', 1000000) as x union all select 'a' {rows}) t) t")),
        ("a window of everything", "select max(m) from (select max(value) over () as m from generate_series(1, 100000000) g) t".to_owned()),
        ("a growing window", "select max(length(m)) from (select string_agg(value::text, ',') over (order by value) as m from generate_series(1, 100000) g) t".to_owned()),
        ("a list of a subquery for each row", "select max(array_length((select range(0, 2000000))[1:value])) from generate_series(1, 8192) g".to_owned()),
        ("a text of a subquery for each row", "select max(length(greatest((select repeat('x', 10000000)), value::text))) from generate_series(1, 100000) g".to_owned()),
        ("a case of a subquery", "select max(length(case when value % 2 = 0 then (select repeat('x', 9000000)) else value::text end)) from generate_series(1, 100000) g".to_owned()),
        ("many values of subqueries", format!("select {} from generate_series(1, 8192) g", vec!["(select repeat('x', 100000))"; 50].join(", "))),
        ("a type of two gigabytes", format!("select arrow_cast(null, 'FixedSizeList(2147483647, Int64)') {rows}")),
        ("a binary of two gigabytes", format!("select arrow_try_cast(null, 'FixedSizeBinary(2147483647)') {rows}")),
        ("an array type with a size", format!("select cast(null as int[2147483647]) {rows}")),
        ("a nested type with sizes", format!("select null::int[60000][60000] {rows}")),
        ("trimming", "select length(btrim(repeat('a', 2000000), repeat('b', 2000000) || 'a'))".to_owned()),
        ("strpos", "select strpos(repeat('a', 2000000), repeat('a', 1000000) || 'b')".to_owned()),
        ("large classes", "select regexp_count(repeat('aé', 450000), '(?:\\w+\\s?){60}\\d')".to_owned()),
        ("levenshtein", "select levenshtein(repeat('x', 1000000), repeat('y', 1000000))".to_owned()),
        ("a large pattern on a long text", "select regexp_like(repeat('a', 60000000), '(a{1,100}){1,50}b')".to_owned()),
        ("the same by the operator", "select count(*) from generate_series(1, 3) where repeat('a', 60000000) ~ '(a{1,100}){1,50}b'".to_owned()),
        ("filters that grow", format!("{filters} select * from c30 where x > 5")),
    ]);
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn little_text_does_not_take_much_memory() {
    let _alone = HEAVY.lock().await;
    // The peak counts from here; see proc_pid_clear_refs(5).
    std::fs::write("/proc/self/clear_refs", "5").expect("the process's own peak");
    let (lake, _dir) = real_lake();
    let session = session(&lake, &["a"]);
    let limits = QueryLimits {
        memory_bytes: MEMORY_BYTES,
        timeout: Duration::from_secs(60),
        ..QueryLimits::default()
    };
    for (name, sql) in hungry() {
        let before = resident_bytes();
        let answer = match session.query(&sql, Vec::new(), limits).await {
            Ok(output) => output.collect().await,
            Err(problem) => Err(problem),
        };
        let code = answer.map(|rows| cells(&rows)).map_err(|p| p.code.clone());
        println!("{name}: {code:?}, {} MiB more", resident_bytes().saturating_sub(before) >> 20);
        let refused = code.expect_err(name);
        assert!(
            ["sql-memory", "sql-too-large", "sql-invalid"].contains(&refused.as_str()),
            "{name}: {refused}"
        );
        super::limits::released(&lake).await;
    }
    // Everything above together stays within a few times what one query may hold.
    assert!(peak_bytes() < 20 * MEMORY_BYTES, "the process held {} MiB", peak_bytes() >> 20);
}

/// These work on little at a time, however many patterns, groups and rows they are told of: they
/// come to an end, or to their deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_of_much_takes_little() {
    let _alone = HEAVY.lock().await;
    let (lake, _dir) = real_lake();
    let session = session(&lake, &["a"]);
    let timeout = Duration::from_secs(3);
    let limits = QueryLimits { memory_bytes: MEMORY_BYTES, timeout, ..QueryLimits::default() };
    let patterns = "(a{1,100}){1,50}' || value";
    let before = resident_bytes();
    for sql in [
        format!("select max(length(regexp_replace('aaa' || value, '{patterns}, 'x'))) from generate_series(1, 100000)"),
        "select sum(array_length(string_to_array(repeat('x', 100000) || value, null))) from generate_series(1, 2000)".to_owned(),
        format!("select count(*) from generate_series(1, 100000) where 'aaa' || value ~ ('{patterns})"),
        format!("select count(*) from generate_series(1, 100000) where 'aaa' || value !~* ('{patterns})"),
        format!("select count(*) from generate_series(1, 100000) where regexp_like('aaa' || value, '{patterns})"),
        format!("select sum(regexp_count('aaa' || value, '{patterns})) from generate_series(1, 100000)"),
        format!("select count(*) from generate_series(1, 100000) where 'aaa' || value similar to ('{patterns})"),
        "select sum(levenshtein(repeat('x', 2000), repeat('y', 2000) || value)) from generate_series(1, 100000)".to_owned(),
        "select value, max(value) m from generate_series(1, 10) group by value order by 2 desc limit 4000000000".to_owned(),
        "select value from generate_series(1, 10) group by value order by 1 desc limit 400000000".to_owned(),
        "select distinct value from generate_series(1, 10) order by 1 limit 4000000000".to_owned(),
        "select value from generate_series(1, 10) order by 1 desc limit 4000000000 offset 3".to_owned(),
        "select approx_percentile_cont(value, 0.5, 2000000000) from generate_series(1, 10)".to_owned(),
        "select approx_percentile_cont(value, 0.5, 20000 * 100000) from generate_series(1, 10)".to_owned(),
        "select approx_percentile_cont_with_weight(value, 1, 0.5, 2000000000) from generate_series(1, 10)".to_owned(),
        "select approx_percentile_cont(value, 0.5, 2000000000) over () from generate_series(1, 10)".to_owned(),
        "select ntile(2000000000) over (order by value) from generate_series(1, 10)".to_owned(),
        "select lag(value, 2000000000) over (order by value) from generate_series(1, 10)".to_owned(),
        "select nth_value(value, 2000000000) over (order by value) from generate_series(1, 10)".to_owned(),
        "select sum(value) over (order by value rows 2000000000 preceding) from generate_series(1, 10)".to_owned(),
        "select round(1.5, 2000000000), trunc(1.5, -2000000000)".to_owned(),
        "select max(split_part(value::text, '1', 2000000000)) from generate_series(1, 10)".to_owned(),
        "select max(substr(value::text, 1, 2000000000)) from generate_series(1, 10)".to_owned(),
        "select max(left(value::text, 2000000000)) from generate_series(1, 10)".to_owned(),
    ] {
        let began = std::time::Instant::now();
        let answer = match session.query(&sql, Vec::new(), limits).await {
            Ok(output) => output.collect().await,
            Err(problem) => Err(problem),
        };
        let answer = answer.map(|rows| rows.iter().map(|batch| batch.num_rows()).sum::<usize>());
        let more = resident_bytes().saturating_sub(before) >> 20;
        println!("{sql}: {answer:?}, {:?}, {more} MiB more", began.elapsed());
        if let Err(problem) = answer {
            assert!(problem.code.starts_with("sql-") && problem.code != "sql-internal", "{sql}: {problem}");
        }
        assert!(more < 500, "{sql}: {more} MiB more");
        // The memory is given back when the call in which the deadline came is over.
        super::limits::released(&lake).await;
    }
}

/// A line of the process's own account, in bytes.
fn account(line: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/status").expect("the process's account");
    let found = text.lines().find_map(|l| l.strip_prefix(line)).expect("the line");
    found.trim().trim_end_matches("kB").trim().parse::<usize>().expect("a number") << 10
}

fn resident_bytes() -> usize {
    account("VmRSS:")
}

fn peak_bytes() -> usize {
    account("VmHWM:")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_guarded_answers_right() {
    let (lake, _dir) = real_lake();
    let session = session(&lake, &["a"]);
    for (sql, answer) in [
        ("select 'a' || 'b' || 'c'", "abc"),
        ("select 'a' || null", "NULL"),
        ("select max(value::text || '-' || (value + 1)::text) from range(0, 3)", "2-3"),
        ("select string_agg(x || 'b', ',') from (select 'a' as x union all select null) t", "ab"),
        ("select array_to_string(make_array(1, 2) || make_array(3), '+')", "1+2+3"),
        ("select length(repeat('ab', 500000))", "1000000"),
        ("select length(lpad('x', 100000, 'yz'))", "100000"),
        ("select array_length(range(0, 100000))", "100000"),
        ("select sum(x) from (select unnest(range(0, 1000)) as x) t", "499500"),
        ("select count(*) from (select unnest(range(0, 1000000)) as x, 'a' as y) t", "1000000"),
        ("select length(replace(repeat('ab', 100000), 'a', 'xyz'))", "400000"),
        ("select length(regexp_replace(repeat('ab', 1000), 'a', 'xyz', 'g'))", "4000"),
        (
            "select max(length(regexp_replace(value::text, '^', repeat('z', 1000)))) from range(0, 20000)",
            "1005",
        ),
        // What functions answered for earlier rows is not counted towards later ones.
        ("select sum(length(lpad(value::text, 100, 'x'))) from range(0, 5000000)", "500000000"),
        (
            "select count(*) from range(0, 9000) a join range(0, 9000) b on length(lpad(a.value::text, 20, 'x')) * b.value < 0",
            "0",
        ),
        ("select concat_ws('-', 'a', null, 'b')", "a-b"),
        (
            "select max(length(x)) from (select repeat('x', 100000) as x) a, generate_series(1, 20000) g",
            "100000",
        ),
        (
            "select sum(length(x)) from (select repeat('x', 1000) as x from range(0, 9)) a, generate_series(1, 1000) g",
            "9000000",
        ),
        ("select max(m) from (select max('ab' || value::text) over () as m from range(0, 30)) t", "ab9"),
        ("select count(*) from range(0, 100) where value::text || 'x' = '7x'", "1"),
        ("select count(*) from range(0, 100) where value::text ~ '^1.$'", "10"),
        ("select count(*) from range(0, 100) where value::text !~ '^1.$'", "90"),
        ("select count(*) from range(0, 100) where 'X' || value ~* ('^x' || (value % 10) || '$')", "10"),
        ("select count(*) from range(0, 100) where 'X' || value !~* ('^x' || (value % 10) || '$')", "90"),
        ("select count(*) from range(0, 100) where value::text ~ ('^' || (value % 10) || '+$')", "19"),
        ("select 'a' ~ null", "NULL"),
        ("select count(*) from range(0, 100) where value::text ~ null", "0"),
        ("select count(*) from range(0, 100) where value::text similar to '(1|2)%'", "22"),
        ("select max(length((select repeat('x', 100000)) || value::text)) from range(0, 9000)", "100004"),
        ("select max((select range(0, 100000))[value]) from range(1, 9000)", "8998"),
        ("select length((select string_agg(repeat('x', 1000), '') from range(0, 1000)))", "1000000"),
        ("select levenshtein('kitten', 'sitting')", "3"),
        (
            "select max(value) from (select value from range(0, 30) group by value order by 1 desc limit 3) t",
            "29",
        ),
        (
            "select count(*) from (select value::text || '' as k from range(0, 100) group by value::text || '') t",
            "100",
        ),
    ] {
        assert_eq!(one(&session, sql).await, answer, "{sql}");
    }
    let columns =
        session.describe("select 'a' || 'b', x || 'c' from (select 'x' as x) t").await.expect("columns");
    let rows =
        session.query("select 'a' || 'b', x || 'c' from (select 'x' as x) t", vec![], QueryLimits::default());
    let rows = rows.await.expect("rows");
    assert_eq!(columns.schema.fields().len(), 2);
    for (described, given) in columns.schema.fields().iter().zip(rows.schema.fields()) {
        assert_eq!(described.name(), given.name());
    }
}
