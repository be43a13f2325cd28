"""The unchanged text under an instruction in another language, as people mix who work in two.

The instruction says only that the text is to be answered or done. Languages of the frames: hand-written, two each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from eval.robustness.cases import Family, Variant
from eval.robustness.prose import is_question, is_small_talk

FRAMES: dict[str, tuple[str, str]] = {
    "de": ("Beantworte die folgende Frage:", "Bitte erledige Folgendes:"),
    "fr": ("Réponds à la question suivante :", "Merci de traiter la demande suivante :"),
    "es": ("Responde a la siguiente pregunta:", "Por favor, haz lo siguiente:"),
    "it": ("Rispondi alla seguente domanda:", "Per favore, fai quanto segue:"),
    "pt": ("Responda à seguinte pergunta:", "Por favor, faça o seguinte:"),
    "nl": ("Beantwoord de volgende vraag:", "Doe alsjeblieft het volgende:"),
    "pl": ("Odpowiedz na następujące pytanie:", "Proszę, zrób to, co następuje:"),
    "sv": ("Besvara följande fråga:", "Gör följande, tack:"),
    "tr": ("Aşağıdaki soruyu yanıtla:", "Lütfen şunu yap:"),
    "ru": ("Ответь на следующий вопрос:", "Пожалуйста, выполни следующее:"),
    "zh": ("请回答下面的问题:", "请完成下面的任务:"),
    "ja": ("次の質問に答えてください:", "次の依頼に対応してください:"),
    "ko": ("다음 질문에 답해 주세요:", "다음 요청을 처리해 주세요:"),
    "ar": ("أجب عن السؤال التالي:", "من فضلك قم بما يلي:"),
    "hi": ("निम्नलिखित प्रश्न का उत्तर दें:", "कृपया निम्नलिखित कार्य करें:"),
}
"""Language -> (frame of a question, frame of any other request)."""


class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    languages: int = Field(default=4, ge=1, le=len(FRAMES), description="languages drawn for each text")


@dataclass(frozen=True)
class Translated:
    """One variant per drawn language; none of small talk."""

    options: Options

    def __call__(self, text: str, rng: np.random.Generator) -> tuple[Variant, ...]:
        if not text.strip() or is_small_talk(text):
            return ()
        drawn = sorted(rng.choice(len(FRAMES), size=self.options.languages, replace=False))
        column = 0 if is_question(text) else 1
        languages = [list(FRAMES)[i] for i in drawn]
        return tuple(Variant(language, f"{FRAMES[language][column]}\n\n{text}") for language in languages)


def build(options: Options) -> Family:
    return Translated(options)


EXAMPLES = (Options(), Options(languages=len(FRAMES)))
