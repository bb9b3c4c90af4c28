//! Texts: sentences of common words, other scripts, short replies, and planted words, so that searches for them
//! have known numbers of matches.

use std::fmt::Write;

use super::random::Random;

/// A word with a known number of occurrences.
#[derive(Debug, Clone, Copy)]
pub struct Planted {
    /// The word to search for.
    pub word: &'static str,
    /// How many messages of `rows` contain it.
    pub count: fn(u64) -> u64,
    /// Different phases put different words into different messages.
    phase: u64,
}

/// In no message.
pub const ABSENT: Planted = Planted { word: "quokka", count: |_| 0, phase: 0 };
/// In ten messages.
pub const RARE: Planted = Planted { word: "zanzibar", count: |rows| rows.min(10), phase: 3 };
/// In 20,000 of ten million messages.
pub const MEDIUM: Planted = Planted { word: "refund", count: |rows| rows.div_ceil(500), phase: 11 };
/// In a third of all messages.
pub const COMMON: Planted = Planted { word: "please", count: |rows| rows / 3, phase: 0 };
/// Two Chinese characters in ten messages.
pub const RARE_CJK: Planted = Planted { word: "蜃楼", count: |rows| rows.min(10), phase: 29 };
/// Two Chinese characters in 20,000 of ten million messages.
pub const MEDIUM_CJK: Planted = Planted { word: "退款", count: |rows| rows.div_ceil(500), phase: 47 };

/// All planted words.
pub const PLANTED: [Planted; 6] = [ABSENT, RARE, MEDIUM, COMMON, RARE_CJK, MEDIUM_CJK];

impl Planted {
    /// Whether message `index` of `rows` contains the word: exactly `count` do, evenly spread.
    fn is_in(&self, index: u64, rows: u64) -> bool {
        let (count, place) = ((self.count)(rows), (index + self.phase) % rows);
        (place + 1) * count / rows > place * count / rows
    }
}

/// Parts of texts: the words of each list are separated by bars, frequent ones first.
#[derive(Debug)]
pub struct Vocabulary {
    openings: Vec<&'static str>,
    short: Vec<&'static str>,
    emoji: Vec<&'static str>,
    english: Vec<&'static str>,
    chinese: Vec<&'static str>,
    japanese: Vec<&'static str>,
    korean: Vec<&'static str>,
    cyrillic: Vec<&'static str>,
}

impl Vocabulary {
    /// Creates all parts.
    pub fn new() -> Self {
        let list = |words: &'static str| words.split('|').collect();
        Self {
            openings: list(OPENINGS),
            short: list(SHORT),
            emoji: list(EMOJI),
            english: list(ENGLISH),
            chinese: list(CHINESE),
            japanese: list(JAPANESE),
            korean: list(KOREAN),
            cyrillic: list(CYRILLIC),
        }
    }

    /// Writes the text of message `index` of `rows`; none for a message without text. No other function writes
    /// words of `PLANTED`.
    pub fn write(&self, index: u64, rows: u64, random: &mut Random, out: &mut String) -> Option<()> {
        let is_in = |planted: &&Planted| planted.is_in(index, rows);
        if !PLANTED.iter().any(|planted| is_in(&planted)) {
            return self.write_unplanted(random, out);
        }
        self.english(random, out);
        for planted in PLANTED.iter().filter(is_in) {
            out.push(' ');
            match random.below(4) {
                0 => out.push_str(&planted.word.to_uppercase()),
                _ => out.push_str(planted.word),
            }
            out.push_str(random.pick(&["", ".", "!", ", thanks"]));
        }
        Some(())
    }

    /// Writes a text without any of the planted words; none for a message without text.
    pub fn write_unplanted(&self, random: &mut Random, out: &mut String) -> Option<()> {
        match random.below(100) {
            0..4 => return None,
            4..5 => {}
            5..12 => out.push_str(random.pick(&self.short)),
            12..18 => join(random, &self.chinese, "", 3..14, out),
            18..21 => join(random, &self.japanese, "", 3..10, out),
            21..24 => join(random, &self.korean, " ", 3..9, out),
            24..32 => join(random, &self.cyrillic, " ", 4..14, out),
            32..36 => {
                self.english(random, out);
                out.push(' ');
                out.push_str(random.pick(&self.emoji));
            }
            _ => self.english(random, out),
        }
        Some(())
    }

    /// One or two sentences, often with a number that no other message contains.
    fn english(&self, random: &mut Random, out: &mut String) {
        if random.below(3) == 0 {
            out.push_str(random.pick(&self.openings));
        }
        for sentence in 0..1 + random.below(2) {
            if sentence > 0 {
                out.push_str(". ");
            }
            join(random, &self.english, " ", 5..16, out);
        }
        if random.below(3) == 0 {
            out.push_str(random.pick(&[" order ", " no. ", " invoice ", " ref "]));
            write!(out, "{}", random.below(90_000_000) + 10_000_000).expect("writing to a String cannot fail");
        }
    }
}

fn join(random: &mut Random, words: &[&str], between: &str, length: std::ops::Range<u64>, out: &mut String) {
    for place in 0..length.start + random.below(length.end - length.start) {
        if place > 0 {
            out.push_str(between);
        }
        out.push_str(random.pick_early(words));
    }
}

const OPENINGS: &str = "Hi, |Hello, |Good morning, |Hey |Dear team, |Hi again, |Sorry, ";
const SHORT: &str = "ok|yes|no|Thanks!|👍|ok 👍|?|Done|call me|great|lol|hm|5|on my way";
const EMOJI: &str = "🙂|🙏🙏|😀|🎉|👍🏽|❤️|😂😂|🚚|👩‍👩‍👧";
const ENGLISH: &str = "the|to|I|you|a|and|is|it|my|in|of|that|for|we|on|have|be|are|this|not|with|your|can|at|was|will|so|me|do|\
    but|if|what|when|just|from|all|get|up|they|out|he|there|how|as|by|or|she|time|about|one|go|an|our|would|\
    know|now|been|today|tomorrow|order|still|see|here|need|like|has|them|send|back|who|no|good|some|more|home|\
    him|where|week|day|work|could|her|then|had|make|number|only|which|Monday|after|before|take|want|package|\
    phone|account|did|morning|think|also|because|than|other|new|sure|any|come|address|payment|delivery|again|\
    tonight|night|let|us|way|were|his|same|last|next|should|late|early|help|wait|message|call|tell|meeting|\
    office|bus|train|school|lunch|dinner|doctor|appointment|confirm|cancel|change|receive|received|arrive|\
    arrived|driver|street|house|door|floor|building|city|weekend|Friday|hour|minutes|price|money|bank|card|\
    transfer|receipt|total|free|offer|discount|colour|size|small|large|blue|black|white|broken|missing|wrong|\
    right|another|instead|return|ticket|flight|hotel|booking|reservation|people|family|mother|father|brother|\
    sister|friend|birthday|party|happy|tired|weather|rain|sunny|cold|coffee|tea|water|bread|rice|shop|market|\
    customer|service|support|question|answer|problem|solved|working|online|website|password|email|photo|picture|\
    document|signature|contract|subscription|upgrade|battery|screen|charger|keyboard|laptop|warranty|technician|\
    neighbour|garden|kitchen|window|temperature|yesterday|September|October|Wednesday|Thursday|unfortunately|\
    immediately|approximately|available|quantity";
const CHINESE: &str = "我们|你好|今天|明天|请问|什么|时候|可以|谢谢|订单|已经|没有|收到|快递|地址|电话|客服|问题|付款|发票|公司|老师|晚上|早上|吃饭|回家|上班|开会|朋友|孩子|天气|下雨|火车|机场|酒店|预订|\
    取消|确认|价格|便宜|质量|颜色|尺寸|，|。|的|了|吗|在|是";
const JAPANESE: &str = "です|ます|お願い|こんにちは|ありがとう|ございます|今日は|明日|注文|番号|配送|いつ|届き|ますか|すみません|確認|予約|変更|電話|会議|東京|大阪|カード|メール|キャンセル|、|。|は|が|を|に";
const KOREAN: &str = "안녕하세요|감사합니다|오늘|내일|주문|배송|언제|도착하나요|확인|부탁드립니다|예약|취소|변경|전화|주소|결제|문의|있습니다|없습니다|괜찮아요|네|아니요|회의|시간|친구|저녁";
const CYRILLIC: &str = "и|в|не|на|я|что|с|это|мы|как|по|но|заказ|когда|привет|спасибо|пожалуйста|здравствуйте|доставка|сегодня|\
    завтра|номер|адрес|деньги|оплата|можно|нужно|домой|работа|Вечером|утром|приеду|позвоните|хорошо|Москва|Київ|\
    дякую|будь|ласка|встреча|погода|ещё";
