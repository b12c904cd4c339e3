//! Statements of every kind that nests, in every size, through every entry of the lake: each is
//! answered, and the process lives. A stack that overflows ends the whole test program.

use levada_core::{Quota, Quotas, TenantQuotas};

use super::*;

/// Splits a seed into numbers (xorshift).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % below.max(1) as u64).expect("less than a usize")
    }
}

type Make = fn(usize) -> String;

fn nested(n: usize, open: &str, core: &str, close: &str) -> String {
    format!("{}{core}{}", open.repeat(n), close.repeat(n))
}

fn chained(n: usize, first: &str, link: &dyn Fn(usize) -> String) -> String {
    (0..n).fold(first.to_owned(), |mut sql, i| {
        sql.push_str(&link(i));
        sql
    })
}

/// A statement of `n` levels or elements for each way to write them.
const KINDS: [(&str, Make); 60] = [
    ("plus", |n| format!("select 1{}", "+1".repeat(n))),
    ("plus of a column", |n| {
        format!("select sum(x{}) from (select value as x from range(0, 9)) t", "+1".repeat(n))
    }),
    ("times and minus", |n| format!("select 1{}", "*1-1".repeat(n))),
    ("casts", |n| format!("select 1{}", "::int".repeat(n))),
    ("types", |n| format!("select 1::int{}", "[]".repeat(n))),
    ("array types", |n| format!("select cast(null as {})", nested(n, "array<", "int", ">"))),
    ("or", |n| chained(n, "select 1=2", &|i| format!(" or 1={i}"))),
    ("or of a column", |n| {
        chained(n, "select * from range(0, 9) where value=1", &|i| format!(" or value={i}"))
    }),
    ("and", |n| chained(n, "select * from range(0, 9) where value<>1", &|i| format!(" and value<>{i}"))),
    ("and, or", |n| chained(n, "select true", &|_| " and true or false".into())),
    ("and in or", |n| {
        chained(n, "select true", &|i| if i % 2 == 0 { " and true".into() } else { " or false".into() })
    }),
    ("is null", |n| format!("select 1{}", " is null".repeat(n))),
    ("is true", |n| format!("select true{}", " is true".repeat(n))),
    ("like", |n| format!("select 'a'{}", " like 'a'".repeat(n))),
    ("between", |n| format!("select 1{}", " between 0 and 1".repeat(n))),
    ("concatenation", |n| format!("select 'a'{}", "||'a'".repeat(n))),
    ("comparison", |n| format!("select 1{}", "<1".repeat(n))),
    ("json arrows", |n| format!("select '{{}}'{}", "->'a'".repeat(n))),
    ("at time zone", |n| format!("select now(){}", " at time zone 'UTC'".repeat(n))),
    ("collate", |n| format!("select 'a'{}", " collate \"C\"".repeat(n))),
    ("not", |n| format!("select {}true", "not ".repeat(n))),
    ("minus", |n| format!("select {}1", "- ".repeat(n))),
    ("parentheses", |n| format!("select {}", nested(n, "(", "1", ")"))),
    ("calls", |n| format!("select {}", nested(n, "abs(", "1", ")"))),
    ("coalesce", |n| format!("select {}", nested(n, "coalesce(", "1", ",2)"))),
    ("case in case", |n| format!("select {}", nested(n, "case when true then ", "1", " else 2 end"))),
    ("when", |n| chained(n, "select case 1", &|i| format!(" when {i} then {i}")) + " end"),
    ("subscripts", |n| format!("select make_array(1){}", "[1]".repeat(n))),
    ("arrays", |n| format!("select {}", nested(n, "make_array(", "1", ")"))),
    ("array literals", |n| format!("select {}", nested(n, "[", "1", "]"))),
    ("intervals", |n| format!("select {}'1 day'", "interval ".repeat(n))),
    ("union all", |n| format!("select 1{}", " union all select 1".repeat(n))),
    ("union", |n| format!("select 1{}", " union select 1".repeat(n))),
    ("except", |n| format!("select 1{}", " except select 2".repeat(n))),
    ("mixed sets", |n| {
        chained(n, "select 1", &|i| {
            [" union all select 1", " intersect select 1", " union select 2"][i % 3].into()
        })
    }),
    ("tables in a row", |n| {
        chained(n, "with c0 as (select 1 as x)", &|i| format!(", c{} as (select x+1 as x from c{i})", i + 1))
            + &format!(" select * from c{n}")
    }),
    ("tables doubled", |n| {
        chained(n, "with c0 as (select 1 as x)", &|i| {
            format!(", c{} as (select a.x from c{i} a, c{i} b)", i + 1)
        }) + &format!(" select count(*) from c{n}")
    }),
    ("coalesce of a column", |n| {
        format!("select {} from range(0, 2) t", nested(n, "coalesce(", "value", ", 5)"))
    }),
    ("nvl2", |n| format!("select {} from range(0, 2) t", nested(n, "nvl2(", "value", ", 5, 6)"))),
    ("nullif", |n| format!("select {} from range(0, 2) t", nested(n, "nullif(", "value", ", 5)"))),
    ("maps", |n| format!("select {}", nested(n, "map(['a'],[", "1", "])"))),
    ("in lists", |n| format!("select {} from range(0, 2) t", nested(n, "((", "value", ") in (1, 2))::int"))),
    ("between and", |n| {
        format!("select {} from range(0, 2) t", nested(n, "((", "value", ") between 1 and 2)::int"))
    }),
    ("case of operand", |n| {
        format!(
            "select {} from range(0, 2) t",
            nested(n, "case ", "value", " when 1 then 2 when 3 then 4 end")
        )
    }),
    ("not in", |n| {
        let open: String = (0..n)
            .map(|i| format!("t{i}.value not in (select t{0}.value from range(0, 2) t{0} where ", i + 1))
            .collect();
        format!("select count(*) from range(0, 2) t0 where {open}false{}", ")".repeat(n))
    }),
    ("calls by another name", |n| format!("select {}", nested(n, "pow(", "2", ", 1)"))),
    ("rows", |n| format!("select {}", nested(n, "row(", "1", ")"))),
    ("WITH inside of WITH", |n| {
        format!("{}select 1 as a{}", "with c as (".repeat(n), ") select a from c".repeat(n))
    }),
    ("joins", |n| {
        chained(n, "select count(*) from range(0, 1) t", &|i| {
            format!(" join range(0, 1) t{i} on t{i}.value = t.value")
        })
    }),
    ("cross joins", |n| chained(n, "select count(*) from range(0, 1) t", &|i| format!(", range(0, 1) t{i}"))),
    ("subqueries", |n| nested(n, "select * from (", "select 1 as x", ") t")),
    ("scalar subqueries", |n| nested(n, "select (", "select 1", ")")),
    ("exists", |n| nested(n, "select 1 where exists (", "select 1", ")")),
    ("parentheses in from", |n| format!("select * from {}", nested(n, "(", "range(0, 1)", ")"))),
    ("explain", |n| format!("{}select 1", "explain ".repeat(n))),
    ("cube", |n| {
        chained(n, "select count(*) from range(0, 9) group by cube(value", &|i| format!(",value+{i}")) + ")"
    }),
    ("windows", |n| {
        chained(n, "select 1", &|i| format!(",sum(value) over (order by value+{i})")) + " from range(0, 9)"
    }),
    ("list", |n| chained(n, "select * from range(0, 9) where value in (1", &|i| format!(",{i}")) + ")"),
    ("values", |n| chained(n, "values (1)", &|i| format!(",({i})"))),
    ("columns", |n| chained(n, "select 1 as c", &|i| format!(",{i} as c{i}"))),
];

/// Some, nearly as many as may nest, many, and as many as a text may hold. `LEVADA_DEEP=all` tries
/// more sizes and has more patience.
const SIZES: [usize; 4] = [40, 160, 4_000, 30_000];
const ALL_SIZES: [usize; 7] = [3, 40, 160, 300, 1_000, 4_000, 30_000];

fn is_campaign() -> bool {
    std::env::var("LEVADA_DEEP").is_ok_and(|wanted| wanted == "all")
}

/// Answers that a statement may get; anything else is a fault.
fn judged(what: &str, answer: Result<(), Problem>) {
    if let Err(problem) = answer {
        // A statement whose time is over keeps its place until its plan is made: the next may wait in vain.
        let told = problem.code.starts_with("sql-") || problem.code == "quota-exceeded";
        assert!(told, "{what}: {problem}");
        assert_ne!(problem.code, "sql-internal", "{what}: {problem}");
    }
}

fn one_at_a_time() -> LakeConfig {
    let quotas = Quotas::new(&[(Quota::Queries, 1)], &TenantQuotas::new());
    LakeConfig { query_threads: 1, quotas, ..LakeConfig::default() }
}

async fn every_entry(lake: &Lake, session: &SqlSession, what: &str, sql: &str) {
    let patience_s = if is_campaign() { 20 } else { 3 };
    let timeout = std::time::Duration::from_secs(patience_s);
    let limits = QueryLimits { timeout, ..QueryLimits::default() };
    let began = std::time::Instant::now();
    let queried = match session.query(sql, Vec::new(), limits).await {
        Ok(output) => output.collect().await.map(drop),
        Err(problem) => Err(problem),
    };
    println!("{what}: {:?} {:?}", began.elapsed(), queried.as_ref().map_err(|p| p.code.clone()));
    judged(what, queried);
    judged(what, session.describe(sql).await.map(drop));
    judged(what, lake.rehearse_model(sql, &Owner::Shared).await.map(drop));
    let input = order_schema();
    match lake.compile(sql, Arc::clone(&input)) {
        Ok(program) => judged(what, program.run(orders(&["a"], 0, 2, 1)).await.map(drop)),
        Err(problem) => judged(what, Err(problem)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_overflows_a_stack() {
    let _alone = HEAVY.lock().await;
    let dir = TempDir::new().expect("a temporary directory");
    let lake = open(Arc::new(RealDisk::new(dir.path()).expect("a disk")), one_at_a_time());
    let session = session(&lake, &["a"]);
    let seed = std::env::var("LEVADA_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_261_130);
    println!("seed {seed}");
    let mut numbers = Numbers(seed);
    for (kind, make) in KINDS {
        let sizes: &[usize] = if is_campaign() { &ALL_SIZES } else { &SIZES };
        for &size in sizes {
            let size = size + numbers.next(size / 2);
            every_entry(&lake, &session, &format!("{kind} of {size}"), &make(size)).await;
        }
    }
    assert_eq!(one(&session, "select count(*) from generate_series(1, 100)").await, "100");
}

/// Every function, called within itself: the time for a plan must not double with each level.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_function_makes_plans_that_double() {
    let _alone = HEAVY.lock().await;
    const LEVELS: usize = 24;
    let (lake, _dir) = real_lake();
    let session = session(&lake, &["a"]);
    let timeout = std::time::Duration::from_secs(5);
    let limits = QueryLimits { timeout, ..QueryLimits::default() };
    let ask = async |sql: &str| match session.query(sql, Vec::new(), limits).await {
        Ok(output) => output.collect().await.map(drop),
        Err(problem) => Err(problem),
    };
    let mut names: Vec<String> = lake.inner.engine.functions();
    names.sort();
    let (mut tried, mut slow) = (0, Vec::new());
    for name in &names {
        for core in ["value", "value::text", "value::double", "make_array(value)", "value > 0"] {
            for rest in ["", ", 1", ", 'a'", ", 1, 1", ", 'a', 'b'"] {
                let call = |levels: usize| {
                    let nest = nested(levels, &format!("{name}("), core, &format!("{rest})"));
                    format!("select {nest} from range(1, 3) t")
                };
                if ask(&call(2)).await.is_err() {
                    continue;
                }
                tried += 1;
                let began = std::time::Instant::now();
                let answer = ask(&call(LEVELS)).await;
                let code = answer.map_err(|problem| problem.code).err().unwrap_or_default();
                if began.elapsed().as_secs() >= 1 {
                    println!("{}: {:?} {code}", call(2), began.elapsed());
                }
                if code == "sql-timeout" {
                    slow.push(call(2));
                }
            }
        }
    }
    println!("{} functions, {tried} ways to call them within themselves", names.len());
    assert!(tried > 100, "{tried}");
    assert!(slow.is_empty(), "{slow:#?}");
}
