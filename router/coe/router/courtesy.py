"""Words that ask for nothing: greetings, thanks, and what frames a request without saying what it is.

A sentence made of nothing but these can come before or after any request and leave it the same. Hand-written from
dictionaries of each language. Words that name a task (write, translate, explain), a topic, or a form of the answer are
left out on purpose, and so are words that ask (what, how many).
"""

from __future__ import annotations

WORDS: dict[str, str] = {
    "en": """
        a about advance afternoon again all am an and answer any anything appreciate appreciated are assist
        assistance assistant assistants at be been below best bit bother bothering bye can cheers could day dear
        disturb do does doing done evening everyone everybody favor favour fine following follows folks for
        friend friends fun good got grateful great greetings guys had handle handy happy hand has have having
        hello help helpful helping here here's heres hey hi hiya hope hopefully how's howdy i i'd i'll i'm i've
        if im in input instruction instructions is issue it it's kind kindly let lot lots love made many matter
        me minute moment morning most much my need needed new next nice obliged of ok okay on one out please pls
        plz prompt q query question questions quick quickly really regards request response say see so some
        something soon sorry stuck take task tasks team thank thankful thanks that that'd that's the them there
        these thing things this this'd this'll those time to today trouble troubling ty thx tia user very want
        wanted was week weekend well will wish with wonder wondered wondering would yo you you'd you'll you're
        your yours yourself sincerely warm warmly care problem for's deal respond reply
    """,
    "de": """
        abend anbei anfrage auf aufgabe bearbeite bearbeiten beantworte beantworten bei beim besten bitte
        bräuchte brauche damit danke dankbar dankeschön das dem den der die diese diesem diesen dieser dieses
        dich dir du eine einen einer erledige erledigen euch folgende folgendem folgenden folgender folgendes
        für frage freue freundliche freundlichen gern gerne gruß grüße grüßen gute guten habe hallo helfen hi
        hier hilf hilfe ich ihnen ihr ihre im in ist kannst können könntest könnten lautet liebe lieber lösen
        mal mein meine meinen mich mir mit morgen moin nächste servus sie tag um und viele vielen voraus wäre
        wünsche würde zu
    """,
    "fr": """
        à aide aider aidez aide-moi aimerais ai avance avec avez beaucoup bien bonjour bonsoir bonne ce ceci
        cela cette cordialement coucou d d'avance de demande demander des du est est-ce et faire faites fais j
        j'ai j'aimerais j'aurais je journée l la le les ma me merci mille moi mon ne nous on peux pourrais
        pourriez pour pouvez pouvoir que question répondre répondez réponds requête s s'il salut si suivant
        suivante suivantes suivants svp t'en tâche te toi traiter traitez tu un une veuillez veux voici voilà
        votre voudrais vous plaît plait besoin
    """,
    "es": """
        a adelantado al amable antemano aquí atiende ayuda ayudar ayúdame ayudarme buenas buenos con consulta
        cordial cosa de del día días el en es esta este esto estoy favor gracias gustaría hacer hago haga haz he
        hola la las lo los me mi mis muchas muy necesito noches para petición podrías podría por pregunta puede
        puedes que quería quiero quisiera responde responda responder saludo saludos siguiente siguientes
        solicitud tarde tardes tarea te tengo tu un una usted y
    """,
    "it": """
        a aiutami aiuto aiutarmi al alla anticipo buon buona buonasera buongiorno cara caro che ciao con
        cordiali cosa cui da del della di domanda e è ecco esegui eseguire fai fare favore gentilmente giornata
        grazie ho il in la le lo mi mia mille mio molte per piacere potresti potrebbe può puoi quanto questa
        questo richiesta rispondere rispondi risponda salve saluti segue seguente seguenti ti tua tuo un una
        vorrei compito
    """,
    "pt": """
        a ajuda ajudar ajuda-me ajude-me antecipadamente ao atenda bom boa com consulta de desde dia do e é em
        este esta estou faça fazer favor gostaria isto isso já me meu minha muito na noite o obrigada obrigado
        olá oi os para pedido pergunta poderia podes pode por preciso que queria responda responder responde
        seguinte seguintes segue solicitação tarde tarefa um uma você
    """,
    "nl": """
        alsjeblieft alstublieft alvast antwoord avond bedankt beantwoord beantwoorden beste dag dank dankjewel
        de deze dit doe doen een even goede goedemiddag goedemorgen graag groet groeten hallo heb help hét het
        hi hoi hier hierbij hiermee hulp ik is je jij kan kun kunnen kunt mee met middag mij mijn morgen nodig
        om opdracht taak u uw veel verzoek volgende voor vraag vriendelijke wil wilt zou
    """,
    "pl": """
        bardzo będę cię chcę chciałbym chciałabym co cześć czy dobry dzień dziękuję dzięki góry hej i jest ma
        mam mi mogę mógłbyś mogłabyś moje moja mój na następującą następujące następujący następuje odpowiedz
        odpowiedzieć oto po pomocy pomoc pomóc pomóż poniższe potrzebuję pozdrawiam pozdrowienia prośba prośbę
        proszę pytanie się tym to w wdzięczny wdzięczna wieczór witam wykonaj wykonać z za zadanie zrób zrobić
    """,
    "sv": """
        att besvara dag den denna det detta du en ett fråga följande för förhand god gör göra hej hejsan har
        hjälp hjälpa hälsning hälsningar här jag kan kunde med mig min mitt morgon mycket måste nästa och om
        skulle snälla svara tack tacksam uppgift uppgiften vara vänlig vänliga vänligen vill är behöver
    """,
    "tr": """
        aşağıdaki aşağıdakini ben bana benim bir bu bunu da edebilir eder ederim et günaydın günler için ile
        isteğim istiyorum iyi konuda lazım lütfen merhaba misin mısın olur rica sana selam selamlar sevgiler sor
        soru sorum soruyu sorumu şimdiden şu şunu teşekkür teşekkürler var yanıtla yanıtlar cevapla yap yapar
        yardım yardımcı yardımına ihtiyacım görevi görev
    """,
    "ru": """
        благодарен благодарю большое буду бы в вам вас ваш вечер вопрос вот выполни выполните выполнить вы всё
        добрый день до доброе еще ещё за задание задача задачу заранее запрос здравствуй здравствуйте и как-то
        мне мной мог могли можешь можете мой моя на надо нужна нужно ответь ответьте ответить очень пожалуйста
        помоги помогите помочь помощь привет просьба с сделай сделайте следующее следующий следующую спасибо так
        ты тебя тобой у уважением утро хотел хотела хочу что-то это этим этот я
    """,
    "ko": """
        감사합니다 감사해요 고마워 고마워요 고맙습니다 다음 다음에 다음을 답변해 답해 답하세요 대답해 도와
        도와주세요 도와줘 도움이 미리 부탁드려요 부탁드립니다 부탁해요 부탁해 수 수행해 아래 아래의 안녕
        안녕하세요 요청 요청을 요청에 이 이것 이것을 작업 작업을 작업에 제 좀 주세요 주시겠어요 주실 주십시오 줘
        질문 질문에 질문이 질문입니다 처리해 필요해요 하세요 해 해결해 있나요 있어요
    """,
    "ar": """
        أجب أحتاج أرجو أريد أن إلى التالي التالية الرجاء السؤال السلام الطلب الخير العمل المهمة المساعدة إجابة
        بما بهذا بشكل جزيلا جزيلاً سؤال سؤالي سلفا شكرا شكراً صباح طلب طلبي على عليكم عن عملية في فضلك قم كان لك
        لو لي ما مساء مساعدة مساعدتي مرحبا مرحباً من مهمة نفذ نفّذ هذا هذه هل هو هي يرجى يلي يمكنك ساعدني سمحت
    """,
    "hi": """
        अग्रिम अनुरोध आप आपका आपकी इस इसमें इसे उत्तर एक करें करो कर कार्य का काम की कुछ के को कृपया क्या चाहिए
        दीजिए दें दो धन्यवाद नमस्कार नमस्ते निम्न निम्नलिखित नीचे पूरा प्रश्न बहुत मदद मुझे मेरा मेरी में यह ये
        लिए शुक्रिया सकते सकती सवाल सहायता से हूँ है हैं जवाब
    """,
}

PHRASES = """
    请 请你 请您 麻烦 麻烦你 麻烦您 帮 帮我 帮忙 帮助 一下 回答 解答 完成 处理 看看 做 这个 这道
    下面 以下 如下 下列 的 问题 任务 请求 要求 我 我的 你 您 你好 您好 早上好 下午好 晚上好 谢谢
    谢谢你 谢谢您 多谢 感谢 非常 十分 提前 先 了 吧 可以 能 能不能 吗 有 个 一个 需要 想 想要 是 对
    谢 お願い お願いします お願いいたします こんにちは こんばんは おはよう おはようございます
    ありがとう ありがとうございます どうも よろしく すみません 次 次の 以下の 下記 下記の この これ
    これを 質問 質問に 質問です 依頼 依頼に 依頼です タスク タスクを に を の は が です 対応
    対応して 回答して 答えて 処理して 実行して 手伝って 助けて ください 下さい くださいませんか
    もらえますか いただけますか いただけると 嬉しい 助かり 助かります ます 私 私の 内容 内容に
"""
"""Pieces of sentences of scripts without spaces between words."""
