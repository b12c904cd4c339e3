//! A scalar function of SQL described by data: its name, the types it takes and gives, and what
//! it does with one batch. The engine's own trait asks for a page of code for each.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{ScalarValue, internal_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// The types that the arguments are cast to, from the types that they have.
type Takes = fn(&[DataType]) -> Result<Vec<DataType>>;
/// The type of the result, from the arguments as cast.
type Gives = fn(&ReturnFieldArgs<'_>) -> Result<DataType>;
type Runs = fn(&ScalarFunctionArgs) -> Result<ColumnarValue>;

/// See the module's description.
pub(super) struct Function {
    name: &'static str,
    signature: Signature,
    takes: Takes,
    gives: Gives,
    runs: Runs,
}

impl Function {
    /// Functions are immutable: what they take of the session's settings is fixed with the plan.
    pub fn udf(name: &'static str, takes: Takes, gives: Gives, runs: Runs) -> Arc<ScalarUDF> {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(Self { name, signature, takes, gives, runs }))
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        internal_err!("{} tells its type from its arguments", self.name)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        // All of them answer null for a null and for nothing else.
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name, (self.gives)(&args)?, nullable)))
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        (self.takes)(types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        (self.runs)(&args)
    }
}

/// The type of argument `i`, for a [`Gives`].
pub(super) fn type_of(args: &ReturnFieldArgs<'_>, i: usize) -> Result<DataType> {
    match args.arg_fields.get(i) {
        Some(field) => Ok(field.data_type().clone()),
        None => plan_err!("an argument is missing"),
    }
}

/// Arguments that are all text.
pub(super) fn all_text(types: &[DataType]) -> Result<Vec<DataType>> {
    Ok(vec![DataType::Utf8; types.len()])
}

/// Runs over arrays of equal length. Where every argument is one value, so is the result.
pub(super) fn by_rows(
    args: &ScalarFunctionArgs,
    run: impl FnOnce(&[ArrayRef]) -> Result<ArrayRef>,
) -> Result<ColumnarValue> {
    let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
    let arrays = ColumnarValue::values_to_arrays(&args.args)?;
    let result = run(&arrays)?;
    match is_scalar {
        true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(result.as_ref(), 0)?)),
        false => Ok(ColumnarValue::Array(result)),
    }
}

/// An argument as text.
pub(super) fn texts(array: &ArrayRef) -> Result<StringArray> {
    match array.data_type() {
        DataType::Utf8 => Ok(array.as_string::<i32>().clone()),
        _ => Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone()),
    }
}
