"""Words that tell what is asked for, in sixteen languages: stems, matched anywhere a word begins (anywhere at all in
scripts without spaces). Hand-written from dictionaries of each language, not mined from any data set."""

from __future__ import annotations

CUES: dict[str, str] = {
    "arithmetic": """
        sum add adds total subtract minus plus times multipl divid percent average mean
        split how_much_is calculat comput tip discount each altogether remainder squared
        square_root cube product_of half_of twice suma sumar cuánto_es cuánto_da calcul
        resta multiplic dividi porcent promedio propina descuento combien_font
        combien_fait somme moyenne pourcent réduction divisé fois wie_viel_ist rechne
        berechne summe prozent durchschnitt geteilt rabatt trinkgeld quanto_fa quanto_è
        somma percentual sconto media quanto_é quanto_dá soma desconto hoeveel_is
        bereken procent gemiddeld ile_to oblicz średni rabat hur_mycket räkna ut rabatt
        kaç_eder hesapla topla yüzde сколько_будет посчитай вычисли сумм процент скидк
        计算 多少钱 加起来 百分之 平均 打折 計算 いくら 合計 割引 パーセント 계산 얼마 더하 퍼센트 할인
        احسب كم_يساوي مجموع خصم
        बताओ_कितना जोड़ प्रतिशत कितना_होगा
    """,
    "extraction": """
        extract pull_out pull_the pick_out find_all_the list_all_the fields field json
        key_value parse get_the_name get_me_the return_the invoice_number order_number
        as_json entities from_this_email from_this_text extrae extraer saca campos
        devuelve extrais extraire champs renvoie extrahiere extrahier felder gib_mir_die
        estrai campi extraia campos haal_de velden wyciągnij wypisz pola plocka_ut fält
        çıkar alanlar извлеки вытащи поля выпиши 提取 抽取 字段 抽出 項目 取り出 추출 뽑아 항목 استخرج
        الحقول निकाल
    """,
    "classification": """
        classif categor label sentiment positive negative neutral spam ham topic intent
        urgent urgency which_of_these is_this_a tag_this what_kind_of tone_of priority
        toxic clasific etiquet sentimiento positiv negativ neutr catégor étiquet urgence
        klassifiz kategor einordn stimmung dringend sentimento classifica etichetta
        rótulo sentyment klasyfik etykiet kategoris sınıfland olumlu olumsuz классифиц
        категор тональн позитив негатив спам 分类 情感 正面 负面 标签 分類 感情 ポジティブ ネガティブ ラベル 분류 감정
        긍정 부정 스팸 صنف تصنيف إيجابي سلبي वर्गीकृत भावना सकारात्मक
    """,
    "conversion": """
        convert in_inches in_cm in_meters in_metres in_feet in_miles in_km in_pounds
        in_kg in_celsius in_fahrenheit to_celsius to_fahrenheit to_kg to_km to_miles
        to_lbs to_cm to_inches binary hexadecimal hex roman iso timezone utc gmt ounces
        gallons liters litres fahrenheit celsius kelvin miles yards inches degrees
        megabyte gigabyte conviert convertir pulgadas millas kilómetros pieds pouces
        milles umrechn rechne_um wandle zoll meilen grad converti pollici miglia
        converta polegadas omzetten reken_om duim przelicz zamień cale mile omvandla tum
        çevir inç santigrat переведи_в_мет дюйм миль градус конверт 换算 转换 英寸 英里 摄氏 华氏 変換
        インチ マイル 摂氏 변환 환산 인치 마일 섭씨 حول_إلى بوصة ميل درجة इंच मील बदलो सेल्सियस किलो
    """,
    "shell": """
        bash shell terminal command command_line one_liner grep sed awk find_files chmod
        chown tar ssh scp curl docker git kubectl systemd systemctl cron crontab
        directory folder disk_space du rm ls sudo apt brew zsh unix linux process port
        log_file symlink rsync pipe stdout comando terminal carpeta commande dossier
        répertoire befehl ordner verzeichnis konsole cartella pasta opdracht map
        polecenie katalog kommando mapp komut klasör команд папк каталог терминал 命令 终端
        目录 文件夹 コマンド ターミナル フォルダ 명령어 터미널 폴더 أمر المجلد कमांड फ़ोल्डर
    """,
    "sql": """
        sql select from where join left_join inner_join group_by order_by having table
        tables column row query postgres mysql sqlite oracle index foreign_key
        primary_key cte window_function insert_into update set_ delete_from database
        schema null count(*) consulta tabla requête abfrage tabelle tabella zapytanie
        sorgu tablo запрос таблиц 查询 表 数据库 クエリ テーブル 쿼리 테이블 استعلام جدول क्वेरी टेबल
    """,
    "code": """
        code function class method python javascript typescript java rust golang c++
        html css react regex bug traceback exception error compile unit_test pytest
        refactor api loop array list dict variable recursion async import return def
        print script program stack_trace undefined null_pointer segfault npm pip
        algorithm debug decorator código función clase programa fonction programme
        boucle funktion klasse schleife programm funzione ciclo função functie funkcj
        klas fonksiyon функци класс код программ 代码 函数 程序 报错 コード 関数 プログラム エラー 코드 함수 프로그램
        오류 كود دالة برنامج कोड फ़ंक्शन प्रोग्राम
    """,
    "translation": """
        translat how_do_you_say how_do_i_say how_to_say say_in in_french in_spanish
        in_german in_italian in_japanese in_chinese in_korean in_portuguese in_dutch
        in_polish in_russian in_arabic in_turkish in_hindi into_english into_french
        into_spanish into_german to_english to_french to_spanish to_german what_does
        mean_in traduc traduis traduire übersetz auf_deutsch auf_englisch
        auf_französisch tradurre traduci traduz vertaal przetłumacz översätt
        çevirir_misin ingilizce переведи перевод по-английски 翻译 翻譯 英文怎么说 译成 訳して 翻訳 英語で
        번역 영어로 ترجم بالإنجليزية अनुवाद अंग्रेज़ी_में en_inglés en_anglais in_inglese
        em_inglês
    """,
    "rewriting": """
        rewrite rephrase reword paraphras proofread grammar spelling correct_this
        fix_this fix_the polish shorten make_this make_it more_formal more_polite less
        tone sound better_version clean_up tighten simplif improve_this typo corrige
        reescrib gramática mejora reformul corriger améliore umformulier korrigier
        verbesser kürze höflicher correggi riscriv reescreva herschrijf verbeter popraw
        przeredaguj skriv_om rätta düzelt yeniden_yaz перепиши исправь сделай_текст 改写
        润色 修改 语法 書き直 添削 直して 다시_써 고쳐 다듬 أعد_صياغة صحح सुधार फिर_से_लिख
    """,
    "summarization": """
        summar tldr tl;dr key_points main_points gist in_a_nutshell boil_down
        brief_overview in_one_sentence in_two_sentences bullet_points takeaways recap
        digest resum puntos_clave résum points_clés zusammenfass fasse kurz riassum
        sintesi sintetizz resuma vat_samen samenvatt streść podsumuj sammanfatta özetle
        özet кратко перескажи суммируй резюмируй 总结 概括 摘要 要約 まとめて 요약 정리해 لخص ملخص सारांश
        संक्षेप
    """,
    "facts": """
        who what when where which capital how_many how_old how_tall how_long how_far
        invented discovered founded president population largest smallest longest
        highest year century war river mountain planet element author quién cuándo dónde
        cuál capital_de qui quand où quel quelle wer wann wo welche hauptstadt chi
        quando dove quem onde wie wanneer waar kto kiedy gdzie stolica vem när var
        huvudstad kim ne_zaman nerede başkent кто когда где столица 谁 什么时候 哪里 首都 多少人口 誰
        いつ どこ 首都は 누구 언제 어디 수도 من متى أين عاصمة कौन कब कहाँ राजधानी
    """,
    "writing": """
        write poem haiku story song lyrics slogan essay blog post speech letter
        cover_letter email_to tagline caption draft toast limerick dialogue screenplay
        product_description invitation announcement compose escribe poema cuento carta
        historia canción redacta écris poème histoire lettre rédige discours schreib
        gedicht geschichte brief rede scrivi poesia storia lettera escreva história
        gedicht schrijf verhaal napisz wiersz opowiad list skriv dikt berättelse yaz
        şiir hikaye mektup напиши стих рассказ письмо 写一 诗 故事 作文 書いて 詩 物語 써줘 시를 이야기 편지
        اكتب قصيدة قصة رسالة लिखो कविता कहानी पत्र
    """,
    "advice": """
        should_i how_do_i how_can_i how_to tips advice help_me best_way recommend
        is_it_safe is_it_normal worth_it what_should my_boss my_doctor my_landlord
        my_partner sleep pain diet exercise budget rent mortgage salary interview visa
        travel recipe cook clean stain plant dog cat kid anxious stressed habit learn
        debería consejo cómo_puedo recomiend devrais conseil comment_puis soll_ich tipps
        wie_kann_ich ratschlag dovrei consigli come_posso devo_ conselho como_posso
        moet_ik advies czy_powin jak_mog porad borde_jag råd tavsiye ne_yapmalı nasıl
        посовет стоит_ли как_мне что_делать 怎么办 建议 应该 どうすれば アドバイス べき 어떻게_해야 조언 추천 نصيحة
        هل_يجب كيف_يمكن सलाह कैसे_करूँ क्या_करूँ
    """,
    "reasoning": """
        puzzle riddle logic if_all therefore deduce conclude premise flaw fallacy
        argument taller older younger sits next_to who_is_lying liar truth order_from
        cause_and_effect consistent contradict which_option compare acertijo lógica
        deduce falacia énigme logique déduire rätsel logik schluss indovinello logica
        raciocínio raadsel zagadka logicz gåta bilmece mantık загадк логик следует вывод
        谜 推理 逻辑 なぞなぞ 論理 推論 수수께끼 논리 추론 لغز منطق पहेली तर्क
    """,
    "chat": """
        hello hi hey thanks thank_you good_morning good_night how_are_you who_are_you
        your_name are_you joke bored lonely bye see_you lol haha nice_to love_you feel
        hola gracias buenos bonjour salut merci ça_va hallo danke guten wie_geht ciao
        grazie buongiorno come_stai olá obrigad bom_dia tudo_bem hoi bedankt cześć
        dzięki hej tack merhaba teşekkür nasılsın привет спасибо как_дела 你好 谢谢 早上好
        こんにちは ありがとう おはよう 안녕 고마워 مرحبا شكرا नमस्ते धन्यवाद
    """,
}
