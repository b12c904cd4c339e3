//! Operators on texts as functions, which can be guarded (see `guarded`).

use std::iter::repeat_n;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, LargeStringArray, StringArray, StringViewArray};
use arrow::compute::kernels::concat_elements::concat_elements_utf8;
use arrow::compute::kernels::regexp::{regexp_is_match, regexp_is_match_scalar};
use arrow::compute::{cast, not};
use arrow::datatypes::DataType;
use datafusion::common::{internal_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;

use crate::amplify::MATCHES;

/// The operator `||` of two texts, whose types are settled.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Concat {
    signature: Signature,
}

impl Concat {
    pub fn new() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Concat {
    fn name(&self) -> &str {
        "string_concat"
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let [left, right] = args else { return internal_err!("|| has two operands") };
        Ok(format!("{} || {}", left.schema_name(), right.schema_name()))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        let [left, right] = arg_types else { return internal_err!("|| has two operands") };
        let wider = [DataType::Utf8View, DataType::LargeUtf8].into_iter().find(|t| left == t || right == t);
        Ok(wider.unwrap_or(DataType::Utf8))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = &args.args[..] else { return internal_err!("|| has two operands") };
        let wanted = args.return_field.data_type();
        let is_constant = [left, right].iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { args.number_rows };
        let text = |arg: &ColumnarValue| -> Result<ArrayRef> { Ok(cast(&arg.to_array(rows)?, wanted)?) };
        let joined = join(&text(left)?, &text(right)?)?;
        match is_constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&joined, 0)?)),
            false => Ok(ColumnarValue::Array(joined)),
        }
    }
}

/// The operators `~`, `~*`, `!~` and `!~*` on two texts. The engine's own keep a compiled pattern
/// for each row, and ask nobody.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Matches {
    op: Operator,
    signature: Signature,
}

impl Matches {
    pub fn is_for(op: Operator) -> bool {
        use Operator::{RegexIMatch, RegexMatch, RegexNotIMatch, RegexNotMatch};
        matches!(op, RegexMatch | RegexIMatch | RegexNotMatch | RegexNotIMatch)
    }

    pub fn new(op: Operator) -> Self {
        Self { op, signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Matches {
    fn name(&self) -> &str {
        MATCHES
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let [left, right] = args else { return internal_err!("{} has two operands", self.op) };
        Ok(format!("{} {} {}", left.schema_name(), self.op, right.schema_name()))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [text, pattern] = &args.args[..] else { return internal_err!("{} has two operands", self.op) };
        let is_constant = [text, pattern].iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { args.number_rows };
        let column =
            |arg: &ColumnarValue| -> Result<ArrayRef> { Ok(cast(&arg.to_array(rows)?, &DataType::Utf8)?) };
        let flags = matches!(self.op, Operator::RegexIMatch | Operator::RegexNotIMatch).then_some("i");
        let texts = column(text)?;
        let texts = texts.as_string::<i32>();
        let found = match pattern {
            ColumnarValue::Scalar(scalar) => match scalar.try_as_str() {
                Some(Some(pattern)) => regexp_is_match_scalar(texts, pattern, flags)?,
                _ => BooleanArray::new_null(rows),
            },
            ColumnarValue::Array(_) => {
                let patterns = column(pattern)?;
                let flags = flags.map(|flags| StringArray::from_iter_values(repeat_n(flags, rows)));
                regexp_is_match(texts, patterns.as_string::<i32>(), flags.as_ref())?
            }
        };
        let found = match self.op {
            Operator::RegexNotMatch | Operator::RegexNotIMatch => not(&found)?,
            _ => found,
        };
        match is_constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&found, 0)?)),
            false => Ok(ColumnarValue::Array(Arc::new(found))),
        }
    }
}

/// The texts of two columns of one type, one after the other; null where one of them is.
fn join(left: &ArrayRef, right: &ArrayRef) -> Result<ArrayRef> {
    fn pairs<'a>(
        left: impl Iterator<Item = Option<&'a str>>,
        right: impl Iterator<Item = Option<&'a str>>,
    ) -> impl Iterator<Item = Option<String>> {
        left.zip(right).map(|(l, r)| Some([l?, r?].concat()))
    }
    Ok(match left.data_type() {
        DataType::Utf8 => {
            let (l, r) = (left.as_string::<i32>(), right.as_string::<i32>());
            Arc::new(concat_elements_utf8(l, r)?) as ArrayRef
        }
        DataType::LargeUtf8 => {
            let (l, r) = (left.as_string::<i64>(), right.as_string::<i64>());
            Arc::new(pairs(l.iter(), r.iter()).collect::<LargeStringArray>())
        }
        DataType::Utf8View => {
            let (l, r) = (left.as_string_view(), right.as_string_view());
            Arc::new(pairs(l.iter(), r.iter()).collect::<StringViewArray>())
        }
        other => return plan_err!("|| is not for {other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_keeps_its_name() {
        let name = Concat::new().schema_name(&[
            Expr::from(datafusion::common::Column::from_name("a")),
            datafusion::prelude::lit("b"),
        ]);
        assert_eq!(name.expect("a name"), "a || Utf8(\"b\")");
    }
}
