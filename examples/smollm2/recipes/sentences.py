"""Hand-written sentences with known labels for `tasks/classification.py`; held-out ones are never trained on."""

from examples.smollm2.recipes.task import Split

Sentences = dict[Split, tuple[str, ...]]

SUBJECTS: Sentences = {
    Split.TRAIN: (
        "the phone", "this hotel", "the movie", "my new laptop", "the pizza", "the service", "this book", "the app",
        "the course", "the headset", "the restaurant", "the game", "this jacket", "the flight", "the support team",
        "the coffee", "the battery", "this vacuum", "the concert", "the update",
    ),
    Split.HELD_OUT: (
        "the camera", "this cafe", "the play", "my new bike", "the soup", "the delivery", "the website", "the mattress",
        "the tour", "the museum",
    ),
}  # fmt: skip
LIKES: dict[str, Sentences] = {
    "positive": {
        Split.TRAIN: (
            "is great", "is fantastic", "was a pleasant surprise", "works perfectly", "exceeded my expectations",
            "is the best I have had", "made my day", "is worth every cent", "is lovely", "was amazing",
            "is really good", "is something I would recommend to everyone", "is a joy", "was excellent",
            "is awesome", "never lets me down", "is super fast and easy",
        ),
        Split.HELD_OUT: (
            "is wonderful", "is superb", "makes me very happy", "was better than I had hoped", "is impressive",
            "is a great choice", "deserves five stars",
        ),
    },
    "negative": {
        Split.TRAIN: (
            "is terrible", "was a waste of money", "broke after two days", "is the worst I have had",
            "was a huge disappointment", "never works", "is awful", "is far too slow", "made me angry", "was horrible",
            "is really bad", "is something I would not recommend", "was a disaster", "is useless", "is overpriced junk",
            "keeps failing", "ruined my day",
        ),
        Split.HELD_OUT: (
            "is dreadful", "is very poor", "makes me very unhappy", "was worse than I had feared", "is annoying",
            "is a bad choice", "deserves zero stars",
        ),
    },
    "neutral": {
        Split.TRAIN: (
            "is okay", "is average", "arrived on Tuesday", "is neither good nor bad", "comes in two colors",
            "does what it says", "is nothing special", "was as expected", "is fine, I guess", "is made in Poland",
            "is like any other", "costs about the same as others", "was so-so", "is available online", "is standard",
        ),
        Split.HELD_OUT: (
            "is ordinary", "is acceptable, no more", "comes with a manual", "was just okay", "is about average",
            "starts at nine",
        ),
    },
}  # fmt: skip
TOPICS: dict[str, Sentences] = {
    "sports": {
        Split.TRAIN: (
            "The team won the final in overtime.", "She broke the world record in the 100 meters.",
            "The coach was fired after five defeats.",
            "He scored two goals in the second half.", "The tennis star reached the semifinal.",
            "The league starts again in August.",
            "Fans filled the stadium for the derby.", "The goalkeeper saved a penalty.",
            "The cyclist took the yellow jersey.",
        ),
        Split.HELD_OUT: (
            "The striker missed the match with an injury.", "The basketball team lost by three points.",
            "The runner won the marathon.",
        ),
    },
    "politics": {
        Split.TRAIN: (
            "Parliament voted on the new tax law.", "The president met the prime minister.",
            "The senator announced her campaign.",
            "Voters go to the polls on Sunday.", "The opposition called for new elections.",
            "The minister resigned after the scandal.",
            "The mayor signed the housing bill.", "The two governments signed a treaty.",
            "The party chose a new leader.",
        ),
        Split.HELD_OUT: (
            "The election ended without a majority.", "Congress debated the new law all night.",
            "The government lost the vote.",
        ),
    },
    "technology": {
        Split.TRAIN: (
            "The new chip doubles the speed of laptops.", "Hackers stole millions of passwords.",
            "The startup released an AI assistant.",
            "The browser update fixes a security bug.", "The company showed a foldable smartphone.",
            "Developers can now use the open source library.",
            "The robot can sort packages on its own.", "The data center runs on new processors.",
            "The app stores its files in the cloud.",
        ),
        Split.HELD_OUT: (
            "The software update makes phones faster.", "Engineers built a new computer chip.",
            "The programming language got a new version.",
        ),
    },
    "business": {
        Split.TRAIN: (
            "The company's profits rose by ten percent.", "Shares fell after the earnings report.",
            "The bank raised its interest rates.",
            "The two firms agreed to merge.", "Retailers expect strong sales this quarter.",
            "The carmaker will cut 2,000 jobs.",
            "Investors bought bonds this week.", "Inflation slowed in March.", "The CEO presented the annual budget.",
        ),
        Split.HELD_OUT: (
            "The stock market closed higher.", "The company reported a loss for the quarter.",
            "The firm bought its rival for two billion dollars.",
        ),
    },
    "health": {
        Split.TRAIN: (
            "Doctors recommend eight hours of sleep.", "The vaccine protects against the flu.",
            "The clinic opens a new ward for children.",
            "Walking daily lowers blood pressure.", "The patient recovered after surgery.",
            "Nurses are in short supply at the hospital.",
            "A new drug helps against migraine.", "Too much sugar raises the risk of diabetes.",
            "She takes vitamins against the cold.",
        ),
        Split.HELD_OUT: (
            "The doctor prescribed a new medicine.", "The hospital treats more patients with flu.",
            "Exercise is good for the heart.",
        ),
    },
    "travel": {
        Split.TRAIN: (
            "The beach hotel is fully booked in July.", "We took the night train to Venice.",
            "The airline added flights to Lisbon.",
            "Pack light for a week in the mountains.", "The guide showed us the old town.",
            "You need a visa to enter the country.",
            "The cruise stops at five islands.", "Our luggage was lost at the airport.",
            "The road trip took us along the coast.",
        ),
        Split.HELD_OUT: (
            "The flight to Athens takes three hours.", "Tourists visit the island in summer.",
            "We booked a hotel near the beach.",
        ),
    },
    "food": {
        Split.TRAIN: (
            "Simmer the sauce for twenty minutes.", "The bakery sells fresh bread every morning.",
            "Add garlic and olive oil to the pasta.",
            "The chef serves grilled fish with lemon.", "This soup needs more salt.",
            "Bake the cake until golden brown.",
            "The new restaurant offers vegan burgers.", "Mix flour, eggs and milk for the pancakes.",
            "The cheese tastes best with red wine.",
        ),
        Split.HELD_OUT: (
            "Fry the onions in butter.", "The recipe needs two eggs and some sugar.",
            "The restaurant is known for its noodles.",
        ),
    },
    "science": {
        Split.TRAIN: (
            "Astronomers found a planet around a distant star.", "The experiment confirmed the theory of gravity.",
            "Biologists described a new species of frog.",
            "The telescope took images of a black hole.", "Physicists measured the mass of the particle.",
            "The fossil is 70 million years old.",
            "Chemists made a new molecule in the lab.", "The probe landed on the moon.",
            "Researchers decoded the genome of the plant.",
        ),
        Split.HELD_OUT: (
            "Scientists discovered a new particle.", "The space probe sent data from Mars.",
            "The researchers studied the cells under a microscope.",
        ),
    },
    "entertainment": {
        Split.TRAIN: (
            "The actor won an Oscar for his role.", "The band plays two concerts in London.",
            "The second season of the series starts tonight.",
            "Her new album topped the charts.", "The director is filming a comedy.",
            "The singer announced a world tour.",
            "The movie made a hundred million at the box office.", "The show was cancelled after one season.",
            "The festival opens with a jazz concert.",
        ),
        Split.HELD_OUT: (
            "The film stars a famous actress.", "The singer released a new song.", "The TV show has a new host.",
        ),
    },
    "weather": {
        Split.TRAIN: (
            "Heavy rain is expected tomorrow.", "The storm brings winds of 100 km/h.",
            "It will be sunny and 25 degrees.",
            "Snow fell overnight in the north.", "Fog covers the valley this morning.",
            "A heat wave is coming next week.",
            "Temperatures drop below zero tonight.", "Clouds clear up in the afternoon.",
            "Thunder and hail hit the coast.",
        ),
        Split.HELD_OUT: (
            "Expect showers and strong wind on Monday.", "It stays cold with some snow.", "Sunny skies all weekend.",
        ),
    },
    "education": {
        Split.TRAIN: (
            "The school hired ten new teachers.", "Students take the exam in June.",
            "The university offers a course in history.",
            "Pupils learn to read in first grade.", "The professor gave a lecture on grammar.",
            "Homework is due on Friday.",
            "The college raised its tuition fees.", "She graduated with honors.",
            "The class prepares for the final test.",
        ),
        Split.HELD_OUT: (
            "The teacher explained the lesson again.", "More students go to college this year.",
            "The exam had forty questions.",
        ),
    },
}  # fmt: skip
INTENTS: dict[str, Sentences] = {
    "cancel order": {
        Split.TRAIN: (
            "I want to cancel my order.", "Please stop my purchase from yesterday.",
            "Cancel order 4431, I don't need it.", "I ordered by mistake, call it off.",
            "Can you cancel the shoes I ordered?",
        ),
        Split.HELD_OUT: ("I changed my mind, please cancel what I bought.", "Don't ship my order, cancel it."),
    },
    "track package": {
        Split.TRAIN: (
            "Where is my package?", "When will my parcel arrive?", "The tracking page shows nothing.",
            "Has my order been shipped yet?", "My delivery is late, where is it?",
        ),
        Split.HELD_OUT: ("I want to know where my parcel is.", "When does my delivery come?"),
    },
    "refund": {
        Split.TRAIN: (
            "I want my money back.", "How do I get a refund?", "You charged me twice, please return the money.",
            "The item is broken, I want to be reimbursed.", "Refund me for the last payment.",
        ),
        Split.HELD_OUT: ("Give me back my money for the broken lamp.", "Can I get a refund for this?"),
    },
    "reset password": {
        Split.TRAIN: (
            "I forgot my password.", "I can't log in to my account.", "How can I change my password?",
            "The site says my password is wrong.", "Send me a link to reset my login.",
        ),
        Split.HELD_OUT: ("I don't remember my password anymore.", "Help, my login does not work."),
    },
    "book table": {
        Split.TRAIN: (
            "A table for four at seven, please.", "I'd like to reserve a table tonight.",
            "Do you have space for two on Friday?", "Book us dinner for six people.",
            "Can we get a table by the window?",
        ),
        Split.HELD_OUT: ("We want to reserve dinner for three.", "Is a table free on Saturday evening?"),
    },
    "opening hours": {
        Split.TRAIN: (
            "When do you open?", "Are you open on Sunday?", "What time does the shop close?",
            "What are your hours on holidays?", "Is the store still open at 8?",
        ),
        Split.HELD_OUT: ("Until when are you open today?", "What time do you open on Monday?"),
    },
    "complaint": {
        Split.TRAIN: (
            "Your staff was very rude to me.", "I am unhappy with the service.",
            "This is the third time it arrives broken!", "Nobody ever answers the phone.",
            "I want to complain about the driver.",
        ),
        Split.HELD_OUT: ("The waiter was rude and slow.", "I am very dissatisfied with your company."),
    },
    "greeting": {
        Split.TRAIN: ("Hello there!", "Hi, how are you?", "Good morning everyone.", "Hey, nice to meet you.", "Hi!"),
        Split.HELD_OUT: ("Hello, how is it going?", "Good evening!"),
    },
}  # fmt: skip
SPAM: dict[str, Sentences] = {
    "spam": {
        Split.TRAIN: (
            "You have WON a free iPhone! Click here now!", "Cheap pills, no prescription needed!!!",
            "Congratulations, claim your $1000 gift card today.",
            "Make $5000 a week from home, ask me how!", "Your account is locked, verify at http://bank-secure.xyz",
            "Hot singles in your area are waiting!",
            "LAST CHANCE: 90% off luxury watches", "Double your bitcoin in 24 hours!",
            "Free loan, no credit check, apply now!",
            "URGENT: you are the winner of our lottery, send your bank details",
            "Lose 10 kg in one week with this secret trick!",
        ),
        Split.HELD_OUT: (
            "WINNER!! Claim your free holiday now, text YES", "Get rich fast with this crypto secret!",
            "Exclusive offer: buy cheap meds online today!!!",
            "Your prize is waiting, click the link to claim it", "Earn $900 a day, no work needed!",
        ),
    },
    "ham": {
        Split.TRAIN: (
            "Are we still meeting at six?", "Mom, I'll be home late tonight.", "Please find the report attached.",
            "Can you pick up milk on the way?",
            "The meeting moved to room 204.", "Thanks for dinner, it was lovely.",
            "Happy birthday! See you on Saturday.", "I sent you the slides yesterday.",
            "Your dentist appointment is on Monday at 9.", "Did you watch the match last night?",
            "Let me know when you get there.",
        ),
        Split.HELD_OUT: (
            "Can we move our call to Thursday?", "I left the keys on the table.",
            "Could you review my draft by Friday?", "See you at the station at eight.",
            "Dad says hi, call him when you can.",
        ),
    },
}  # fmt: skip
