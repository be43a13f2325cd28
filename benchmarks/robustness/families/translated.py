"""The unchanged text under an instruction in another language, as people mix who work in two.

The instruction says only that the text is to be answered or done, or who sent it. The frames are hand-written, three a
language.
"""

from __future__ import annotations

import numpy as np

from benchmarks.robustness.prose import is_question, is_small_talk

FRAMES: dict[str, tuple[str, str, str]] = {
    "de": ("Beantworte die folgende Frage:", "Bitte erledige Folgendes:", "Eine Kundin hat uns das hier geschickt:"),
    "fr": (
        "Réponds à la question suivante :",
        "Merci de traiter la demande suivante :",
        "Une cliente nous a envoyé ceci :",
    ),
    "es": ("Responde a la siguiente pregunta:", "Por favor, haz lo siguiente:", "Una clienta nos ha enviado esto:"),
    "it": ("Rispondi alla seguente domanda:", "Per favore, fai quanto segue:", "Una cliente ci ha mandato questo:"),
    "pt": ("Responda à seguinte pergunta:", "Por favor, faça o seguinte:", "Uma cliente enviou-nos isto:"),
    "nl": ("Beantwoord de volgende vraag:", "Doe alsjeblieft het volgende:", "Een klant heeft ons dit gestuurd:"),
    "pl": ("Odpowiedz na następujące pytanie:", "Proszę, zrób to, co następuje:", "Klientka przysłała nam to:"),
    "sv": ("Besvara följande fråga:", "Gör följande, tack:", "En kund har skickat det här till oss:"),
    "tr": ("Aşağıdaki soruyu yanıtla:", "Lütfen şunu yap:", "Bir müşteri bize bunu gönderdi:"),
    "ru": ("Ответь на следующий вопрос:", "Пожалуйста, выполни следующее:", "Клиентка прислала нам вот это:"),
    "zh": ("请回答下面的问题:", "请完成下面的任务:", "一位客户给我们发来了这个:"),
    "ja": ("次の質問に答えてください:", "次の依頼に対応してください:", "お客様からこれが届きました:"),
    "ko": ("다음 질문에 답해 주세요:", "다음 요청을 처리해 주세요:", "고객이 이것을 보내왔습니다:"),
    "ar": ("أجب عن السؤال التالي:", "من فضلك قم بما يلي:", "أرسلت لنا عميلة ما يلي:"),
    "hi": ("निम्नलिखित प्रश्न का उत्तर दें:", "कृपया निम्नलिखित कार्य करें:", "एक ग्राहक ने हमें यह भेजा है:"),
}
"""Language -> frame of a question, frame of any other request, and one that says where the text comes from."""


DRAWN = 4
"""Languages drawn for each text."""


def variants(text: str, rng: np.random.Generator) -> dict[str, str]:
    """One for each drawn language, with either frame that fits; none of small talk."""
    if not text.strip() or is_small_talk(text):
        return {}
    drawn = sorted(rng.choice(len(FRAMES), size=DRAWN, replace=False))
    fitting = (0 if is_question(text) else 1, 2)
    return {name: f"{FRAMES[name][rng.choice(fitting)]}\n\n{text}" for name in [list(FRAMES)[i] for i in drawn]}
