//! Requests built before the clock starts: what differs from one sending to the next are a few
//! digits at known places.

/// Digits of an id: 16 in hexadecimal.
pub const ID_DIGITS: usize = 16;
/// Digits of a number; it begins with 1, so that it is JSON as it stands.
pub const NUMBER_DIGITS: usize = 10;
/// What stands where an id goes.
pub const ID: &str = "@@@@@@@@@@@@@@@@";
/// What stands where a number goes. Quotes around it are not needed.
pub const NUMBER: &str = "##########";

/// One HTTP request with places for ids.
#[derive(Debug, Clone)]
pub struct Template {
    bytes: Vec<u8>,
    /// Per event, the places of its id and its number.
    ids: Vec<Vec<usize>>,
    numbers: Vec<Vec<usize>>,
}

impl Template {
    /// `events` are JSON texts that contain [`ID`] and perhaps [`NUMBER`].
    pub fn new(path: &str, key: &str, events: &[String]) -> Self {
        let body = match events {
            [one] => one.clone(),
            many => format!("[{}]", many.join(",")),
        };
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: levada\r\nauthorization: Bearer {key}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut start = head.len() + usize::from(events.len() != 1);
        let (mut ids, mut numbers) = (Vec::new(), Vec::new());
        for event in events {
            let places = |mark: &str| event.match_indices(mark).map(|(at, _)| start + at).collect();
            ids.push(places(ID));
            numbers.push(places(NUMBER));
            start += event.len() + 1;
        }
        Self { bytes: (head + &body).into_bytes(), ids, numbers }
    }

    /// Events in the request.
    pub fn events(&self) -> usize {
        self.ids.len()
    }

    /// The request with the ids from `first` on; event `i` gets `id(first + i)`.
    pub fn fill(&mut self, first: u64, id: impl Fn(u64) -> u64) -> &[u8] {
        for event in 0..self.ids.len() {
            let id = id(first + event as u64);
            for &at in &self.ids[event] {
                hex(&mut self.bytes[at..at + ID_DIGITS], id);
            }
            for &at in &self.numbers[event] {
                decimal(&mut self.bytes[at..at + NUMBER_DIGITS], number(id));
            }
        }
        &self.bytes
    }
}

/// The number that goes with an id: ten digits, the first of them 1.
pub fn number(id: u64) -> u64 {
    1_000_000_000 + id % 1_000_000_000
}

fn hex(into: &mut [u8], mut value: u64) {
    for digit in into.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

fn decimal(into: &mut [u8], mut value: u64) {
    for digit in into.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_and_nothing_else() {
        let events = [format!("{{\"id\":\"{ID}\",\"n\":{NUMBER}}}"), format!("{{\"id\":\"{ID}\"}}")];
        let mut template = Template::new("/v1/events", "k", &events);
        let sent = String::from_utf8(template.fill(10, |i| i).to_vec()).unwrap();
        let body = sent.split("\r\n\r\n").nth(1).unwrap();
        assert_eq!(body, "[{\"id\":\"000000000000000a\",\"n\":1000000010},{\"id\":\"000000000000000b\"}]");
        assert!(sent.contains(&format!("content-length: {}\r\n", body.len())));
        assert_eq!(template.events(), 2);
    }
}
