//! Headers that are not the schema's: each names both sides, and makes no row.

use super::*;
use crate::Column;

fn bench(columns: &[&str], delimiter: Delimiter) -> Bench {
    let mut bench = Bench::new(FileFormat::Csv);
    let column =
        |name: &&str| Column { name: name.trim_end_matches('!').to_owned(), required: name.ends_with('!') };
    bench.config.columns = columns.iter().map(column).collect();
    bench.config.source.delimiter = delimiter;
    bench
}

/// What the one reject says.
async fn refusal(bench: &Bench, content: &str) -> String {
    bench.put("a.csv", content);
    let batches = drain(&mut bench.reader(), 10).await.unwrap();
    assert_eq!(told(&batches), ["1 !csv-header"], "{content:?}");
    let reject = &batches[0].rejects[0];
    assert_eq!(&reject.record.body[..], content.as_bytes(), "the letter keeps the file");
    reject.reason.clone()
}

#[tokio::test]
async fn a_foreign_header_refuses_the_file_and_names_both_sides() {
    let columns = &["order_id", "customer", "amount"][..];
    for (columns, content, says) in [
        (columns, "order_id;customer;amount\nA;B;6\n", "delimited by `;`: set `delimiter: ';'`"),
        (columns, "\"Order ID\";\"Customer\"\nA;B\n", "delimited by `;`"),
        (columns, "order_id\tcustomer\tamount\nA\tB\t6\n", "delimited by tabs: set `delimiter: tab`"),
        (columns, "order_id|customer|amount\nA|B|6\n", "set `delimiter: '|'`"),
        (columns, "x;y;z\nA;B;6\n", "set `delimiter: ';'`"),
        (columns, "ORDER_ID,CUSTOMER,AMOUNT\nA,B,6\n", "`ORDER_ID` is not `order_id`"),
        (columns, "order_id,customer,Amount\nA,B,6\n", "`Amount` is not `amount`"),
        (columns, "order_id,Customer Name,amount \nA,B,6\n", ""),
        (columns, "Order Id,Customer,Total\nA,B,6\n", "`Order Id` is not `order_id`"),
        (columns, "order_id;customer,amount\nA;B,6\n", "delimited by `;`"),
        (columns, "a,b,c\nA,B,6\n", "none of them is the same"),
        (columns, "A1,Ann,5\nA2,Bob,6\n", "looks like a row"),
        (columns, "order_id,customer,customer\nA,B,6\n", "names `customer` twice, as columns 2 and 3"),
        (&["order_id", "amount!"], "order_id,customer\nA,B\n", "`amount` is required"),
    ] {
        if says.is_empty() {
            let bench = bench(columns, Delimiter::Comma);
            bench.put("a.csv", content);
            let rows = told(&drain(&mut bench.reader(), 10).await.unwrap());
            assert_eq!(rows, [r#"2 {"order_id":"A","Customer Name":"B","amount":"6"}"#], "a column may lack");
            continue;
        }
        let reason = refusal(&bench(columns, Delimiter::Comma), content).await;
        assert!(reason.contains(says), "{content:?}: {reason}");
        if !says.contains("twice") {
            assert!(reason.contains("the schema reads `order_id`"), "{content:?}: {reason}");
        }
    }
    let reason = refusal(&bench(columns, Delimiter::Semicolon), "order_id,customer,amount\nA,B,6\n").await;
    assert!(reason.contains("set `delimiter: ','`"), "{reason}");
}

#[tokio::test]
async fn each_delimiter_separates() {
    for delimiter in Delimiter::ALL {
        let d = char::from(delimiter.byte());
        let bench = bench(&["a", "b"], delimiter);
        bench.put("a.csv", format!("\u{feff}a{d}\"b\"\n1{d}\"x{d}y\"\n2{d}\"z\n"));
        let wanted =
            format!(r#"2 {{"a":"1","b":"x{}y"}}"#, if d == '\t' { "\\t".into() } else { d.to_string() });
        assert_eq!(
            told(&drain(&mut bench.reader(), 10).await.unwrap()),
            [wanted, "3 !csv-open-quote".into()]
        );
    }
}

#[tokio::test]
async fn a_refused_file_is_told_once_and_read_once_its_settings_suit_it() {
    let mut bench = bench(&["a", "b"], Delimiter::Comma);
    let rows: String = (0..20_000).map(|i| format!("{i};x\n")).collect();
    bench.put("a.csv", format!("a;b\n{rows}"));
    let mut reader = bench.reader();
    let batches = drain(&mut reader, 10).await.unwrap();
    assert_eq!(told(&batches), ["1 !csv-header"]);
    let reject = &batches[0].rejects[0];
    assert!(
        reject.record.body.len() <= 64 << 10 && reject.reason.contains("bronze has all"),
        "{}",
        reject.reason
    );
    let position = stored(&reader.position());
    let mut same = bench.reader();
    same.seek(Some(&position)).await.unwrap();
    assert!(drain(&mut same, 10).await.unwrap().is_empty());
    bench.config.source.delimiter = Delimiter::Semicolon;
    let mut mended = bench.reader();
    mended.seek(Some(&position)).await.unwrap();
    let batches = drain(&mut mended, 5000).await.unwrap();
    assert_eq!(batches.iter().map(|b| b.records.len()).sum::<usize>(), 20_000);
    assert!(codes(&batches).is_empty());
    assert!(drain(&mut mended, 10).await.unwrap().is_empty());
}
