//! Floats of JSON answers. JSON has no number for NaN and the infinities, and null is another
//! value: they are the texts `"NaN"`, `"Infinity"` and `"-Infinity"`.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, FieldRef, Float32Type, Float64Type};
use arrow::error::ArrowError;
use arrow::json::writer::{Encoder, EncoderFactory, EncoderOptions, NullableEncoder};

/// Writes columns that hold such a value; others are Arrow's.
#[derive(Debug)]
pub struct Reals;

impl EncoderFactory for Reals {
    fn make_default_encoder<'a>(
        &self,
        _: &'a FieldRef,
        array: &'a dyn Array,
        _: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let values: Vec<f64> = match array.data_type() {
            DataType::Float64 => array.as_primitive::<Float64Type>().values().to_vec(),
            DataType::Float32 => {
                array.as_primitive::<Float32Type>().values().iter().map(|value| f64::from(*value)).collect()
            }
            _ => return Ok(None),
        };
        if values.iter().all(|value| value.is_finite()) {
            return Ok(None);
        }
        Ok(Some(NullableEncoder::new(Box::new(Column(values)), array.nulls().cloned())))
    }
}

struct Column(Vec<f64>);

impl Encoder for Column {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let value = self.0[row];
        if value.is_nan() {
            out.extend_from_slice(b"\"NaN\"");
        } else if value.is_infinite() {
            out.extend_from_slice(if value > 0.0 { b"\"Infinity\"" } else { b"\"-Infinity\"" });
        } else {
            out.extend_from_slice(format!("{value:?}").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, ListArray};
    use arrow::datatypes::Field;
    use arrow::json::writer::make_encoder;

    use super::*;

    fn written(array: &dyn Array) -> Vec<String> {
        let options = EncoderOptions::default().with_encoder_factory(Arc::new(Reals));
        let field = Arc::new(Field::new("x", array.data_type().clone(), true));
        let mut encoder = make_encoder(&field, array, &options).expect("an encoder");
        (0..array.len())
            .map(|row| {
                let mut out = Vec::new();
                if encoder.is_null(row) {
                    return "null".to_owned();
                }
                encoder.encode(row, &mut out);
                String::from_utf8(out).expect("text")
            })
            .collect()
    }

    #[test]
    fn what_is_no_number_is_told_by_name() {
        let values = vec![Some(1.5), None, Some(f64::NAN), Some(f64::INFINITY), Some(f64::NEG_INFINITY)];
        let expected = ["1.5", "null", "\"NaN\"", "\"Infinity\"", "\"-Infinity\""];
        assert_eq!(written(&Float64Array::from(values.clone())), expected);
        let list = ListArray::from_iter_primitive::<Float64Type, _, _>([Some(values)]);
        assert_eq!(written(&list), [format!("[{}]", expected.join(","))]);
    }
}
