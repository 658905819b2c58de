"""Prompts for the real vocabularies: what people type, and what breaks tokenizers."""

import random

SUBJECTS = [
    "a photo of a cat", "portrait of an elderly fisherman", "an astronaut riding a horse on mars",
    "isometric cutaway of a tiny bakery", "macro shot of a dewdrop on a spider web",
    "a knight in ornate armor standing in the rain", "cyberpunk street market at night",
    "oil painting of a stormy sea", "a corgi wearing sunglasses", "a bowl of ramen, steam rising",
]
STYLES = [
    "highly detailed, 8k, trending on artstation", "by greg rutkowski and alphonse mucha", "35mm f/1.4, bokeh, kodak portra 400",
    "studio ghibli, watercolor", "unreal engine 5, octane render, volumetric lighting", "(masterpiece:1.2), best quality, ((sharp))",
    "low poly; pastel colours; #ff00aa", "black & white -- noir", "in the style of Hokusai's 'Great Wave'", "1girl, solo, looking_at_viewer",
]
ACCENTS = [
    "café crème brûlée à la carte", "cafe\u0301 cre\u0300me bru\u0302le\u0301e", "naïve façade, piñata, jalapeño", "Übergröße Straße ß ẞ ſ",
    "Ångström vs A\u030angstro\u0308m vs \u212bngström", "smørrebrød på Ærø", "İstanbul'da ışık ılık", "Đà Nẵng phở bò Huế", "e\u0323\u0302 vs \u1ec7 vs \u1eb9\u0302",
    "řeřicha žluťoučký kůň", "Łódź źdźbło", "ÀÉÎÕÜ ÇÑŠŽ", "ﬁne ﬂuff ﬀ ﬃ", "Ǆ ǅ ǆ Ⅷ ⅷ ℀ №", "ȘȚ șț ŞŢ", "Ω Ω K K Å Å", "ɐ ʇɐɔ ʇxǝʇ",
    "z\u0351\u036b\u0343\u036aa\u0328\u030el\u0334g\u0321o\u031b text", "\u0301 a lone accent", "a\u0301\u0301\u0301\u0301",
]
OTHER_SCRIPTS = [
    "一只猫坐在椅子上", "一隻戴著帽子的貓，水彩畫", "猫が椅子に座っている。", "カワイイ ｶﾜｲｲ かわいい", "が か\u3099 ガ カ\u3099", "한국어 고양이 그림", "\u1112\u1161\u11ab\u1100\u116e\u11a8 자모",
    "ㅎㅏㄴ", "кошка сидит на стуле", "КОШКА Ёлка ёлка и\u0306 й", "γάτα ΓΆΤΑ σίγμα ΣΊΓΜΑΣ ς", "πολυτονικό ἀρχή ᾳ ᾼ", "חתול על כיסא", "שָׁלוֹם עֲלֵיכֶם", "قطة على كرسي", "لَا إِلٰهَ", "ﷺ ﷲ ﻻ",
    "گربه روی صندلی ۱۲۳", "\u202bقطة\u202c cat \u200fmark\u200e", "mixed עברית and English 123", "बिल्ली कुर्सी पर", "क्षत्रिय क\u094d\u200dष", "แมวนั่งบนเก้าอี้", "မြန်မာ ကြောင်", "ພາສາລາວ", "ᠮᠣᠩᠭᠣᠯ", "ქართული კატა", "ᲥᲐᲠᲗᲣᲚᲘ",
    "հայերեն կատու", "እማርኛ ድመት", "தமிழ் பூனை", "తెలుగు పిల్లి", "বাংলা বিড়াল ড\u09bc", "ᚠᚢᚦᚨᚱᚲ runes", "𓂀𓃠 hieroglyphs", "𝔣𝔯𝔞𝔨𝔱𝔲𝔯 𝓼𝓬𝓻𝓲𝓹𝓽 𝟙𝟚𝟛", "𠜎𠜱𠝹", "ⒸⒶⓉ ①②③ ㊙ ㍿", "ｆｕｌｌ　ｗｉｄｔｈ！", "ᏣᎳᎩ ꮳꮃꭹ",
]
EMOJI = [
    "😀", "a cat 😺 and a dog 🐶", "👩‍🚀👨‍👩‍👧‍👦", "🏳️‍🌈 🏴‍☠️", "👍🏽👍🏿", "🇩🇪🇯🇵🇧", "❤️ vs ❤ vs ❤︎", "1️⃣2️⃣#️⃣", "☺☹☠★☆♥♦", "🧑🏻‍❤️‍💋‍🧑🏿", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "😀😀😀😀😀😀", "text😀text", "🫠🪿🫨", "(╯°□°)╯︵ ┻━┻", "ʕ•ᴥ•ʔ", "¯\\_(ツ)_/¯", "→←↑↓⇒ ∀x∈ℝ ∑√∞", "€£¥₿¢ ©®™", "\u200d alone joiner", "a\ufe0fb\ufe0e",
]
CONTROLS = [
    "nul\u0000inside", "\u0001\u0002\u0003", "bell\u0007 back\bspace", "escape\u001b[31mred\u001b[0m", "delete\u007f", "c1\u0080\u0085\u009f", "soft\u00adhyphen", "zero\u200bwidth\u200cnon\u200djoiner", "\ufeffmark at the start",
    "word\u2060joiner", "\u2028line\u2029paragraph", "replacement\ufffd", "noncharacter\uffff\ufdd0", "private\ue000\U000f0000use", "tag\U000e0001\U000e0020", "object\ufffc", "interlinear\ufff9a\ufffab\ufffb", "\u202ereversed\u202c", "\u2066isolate\u2069",
]
SPACES = [
    "", " ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "a", " a", "a ", "  a  b  ", "a\tb\t\tc", "line one\nline two\r\nthree\rfour", "\u00a0no\u00a0break\u00a0", "\u3000wide\u3000", "em\u2003en\u2002thin\u2009hair\u200a", "narrow\u202fmath\u205f", "ogham\u1680mongolian\u180e",
    "form\u000cfeed vertical\u000btab", "trailing newline\n", "\n\n\nleading newlines", "next\u0085line", "a" + " " * 40 + "b", "   \t \n  ",
]
PUNCTUATION = [
    "!", "!!", "!!!", "!!!!!!!!!!!!!!!!!!!!!!!!", "wow!", "wow!wow", "a!b!c", "! ! !", "?!?!?!", "...", "....", "…", "a.b.c", "a,b,c", ",,,,", "a , b", "--", "---", "—–‒", "a--b", "''", "'''", "\"quoted\" ‘curly’ “double” «guillemets»", "`code` ```fence```",
    "it's we're they've I'm you'll he'd don't", "IT'S WE'RE THEY'VE I'M YOU'LL HE'D DON'T", "'s 't 're 've 'm 'll 'd", "rock'n'roll o'clock 'tis", "it’s we’re don’t", "@user #tag $5 50% a&b *x* (y) [z] {w} <v>", "~`^_|\\/", "((((nested))))", "[[[[brackets]]]]",
    "{a|b|c}", "a/b\\c", "http://example.com/a?b=c&d=e#f", "user.name+tag@example.co.uk", "C:\\Users\\cat\\photo.png", "<lora:detail:0.8>", "a_b_c __dunder__", "snake_case camelCase PascalCase kebab-case", ":-) :( ;) :D xD <3", "、。・「」『』！？", "،؛؟", "¿qué? ¡sí!", "=+-*/%", "!= == <= >= -> =>",
    "#" * 50, "=" * 80, "\\n\\t\\x00", "%20%F0%9F%98%80", "!@#$%^&*()_+", "</w>", "a</w> b</w>",
]
NUMBERS = [
    "0", "1", "10", "100", "1000", "1234567890", "3.14159", "1,000,000", "-5", "+7", "1e-5", "0x1F", "16:9", "1920x1080", "4k 8K", "2nd 3rd 4th", "1990s '90s", "12:30pm", "2024-01-31", "½ ¼ ¾ ⅓ x² x³ H₂O", "٠١٢٣٤", "०१२३", "１２３", "ⅳ Ⅻ", "1/2", "99.9%", "$19.99", "007", "1" * 60, "v1.5 sd2.1 sdxl1.0",
]
MARKUP = [
    "&amp; &lt; &gt; &quot; &#39; &nbsp;", "caf&eacute;", "&#x1F600; &#128512;", "&amp;amp;", "a &amp b &unknown;", "<b>bold</b> <br/>", "<!-- comment -->", "<|startoftext|>", "<|endoftext|>", "a <|startoftext|> b <|endoftext|> c", "<|startoftext|><|endoftext|>", "<|STARTOFTEXT|>", "< |endoftext| >", "x<|endoftext|>y", "<start_of_text>", "<pad>", "</s>", "<unk>", "<s>",
    "a </s> b", "a</s>b", "<extra_id_0>", "a <extra_id_99> b <extra_id_1>", "<extra_id_100>", "<EXTRA_ID_0>", "[PAD] [CLS] [MASK]", "\u2581", "a\u2581b", "\u2581\u2581a", "\u0120a \u0120", "Ġword Ċ", "<0x0A>",
]
WORDS = [
    "antidisestablishmentarianism", "pneumonoultramicroscopicsilicovolcanoconiosis", "Donaudampfschifffahrtsgesellschaftskapitän", "supercalifragilisticexpialidocious" * 4, "a" * 200, "ab" * 150, "aaaaabbbbbccccc", "AAAA aAaA", "lololololol", "qwxzjkvbpygh", "asdfghjkl;'",
    "hellohellohellohello", "文" * 90, "é" * 120, "😀" * 60, "\u0301" * 40, "xX_CoolName_Xx", "iPhone eBay YouTube", "NASA's JPL", "HELLO World hElLo", "tHe QuIcK bRoWn FoX", "photorealistic photo-realistic photo realistic", "greg rutkowski", "artstation deviantart cgsociety", "bokeh chiaroscuro sfumato", "the of and to in", "colour color grey gray", "lorem ipsum dolor sit amet",
]


def _combined() -> list[str]:
    return [f"{subject}, {style}" for index, subject in enumerate(SUBJECTS) for style in (STYLES[index], STYLES[-1 - index])]


def _random() -> list[str]:
    """Letters of all kinds in random order, and every printable ASCII letter next to others."""
    generator = random.Random(7)
    pieces = [piece for group in (ACCENTS, OTHER_SCRIPTS, EMOJI, CONTROLS, SPACES, PUNCTUATION, NUMBERS, MARKUP) for piece in group if len(piece) < 40]
    mixed = ["".join(generator.choices(pieces, k=4)) for _ in range(40)]
    letters = sorted({letter for piece in pieces for letter in piece})
    shuffled = ["".join(generator.choices(letters, k=24)) for _ in range(40)]
    printable = ["".join(generator.choices([chr(code) for code in range(32, 127)], k=30)) for _ in range(30)]
    return mixed + shuffled + printable


LONG = [
    ", ".join(SUBJECTS + STYLES), " ".join(f"{subject}." for subject in SUBJECTS * 4), " ".join(str(number) for number in range(200)),
    "word " * 75, "word " * 76, "word " * 77, "cat, " * 37, "a " * 510, "a " * 511, "a " * 600,
]

PROMPTS = list(dict.fromkeys(
    SUBJECTS + STYLES + _combined() + ACCENTS + OTHER_SCRIPTS + EMOJI + CONTROLS + SPACES + PUNCTUATION + NUMBERS + MARKUP + WORDS + LONG + _random()
))
