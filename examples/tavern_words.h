/* tavern_words.h - what is talked about in the tavern of tavern_corpus.c: people, wares, places,
 * rumours, quests, moods, and what else is known in the village.
 *
 * In a text {a|b} is one of its parts, [a] is there or not, <a> is what stands for it now (`set`
 * and `slot_text` of tavern_corpus.c). Sentences begin with a capital letter by themselves. */

static const char *const women[] = {
    "Mira", "Elsa", "Greta", "Hilda", "Ida",  "Nora", "Rosa", "Tilda", "Wanda", "Agnes",
    "Berta", "Clara", "Dora", "Frida", "Lena", "Marta", "Olga", "Petra", "Sofia", "Vera"};
static const char *const men[] = {
    "Tobin", "Aldo", "Bruno", "Conrad", "Dirk", "Egon", "Felix", "Gregor", "Hugo", "Ivo",
    "Jasper", "Karl", "Lorenz", "Milo", "Nils", "Oskar", "Pavel", "Rolf", "Stefan", "Viktor"};
static const char *const players[] = {"Robin", "Alex", "Sam", "Kit", "Ash", "Rowan", "Quinn", "Max",
                                      "Finn", "Lia", "Tess", "Leo", "Ben", "Eva", "Jon", "Anna"};
static const char *const taverns[] = {
    "Copper Kettle", "Sleepy Fox", "Broken Oar", "Golden Goose", "Laughing Toad", "Iron Lantern",
    "Silver Trout", "Crooked Chimney", "Red Rooster", "Blind Badger", "Three Barrels", "Old Anchor",
    "Merry Miller", "Black Kettle", "White Hart", "Wandering Bear", "Rusty Nail", "Singing Kettle",
    "Green Dragon", "Hungry Wolf", "Lucky Penny", "Seven Stars", "Drunken Owl", "Last Candle"};
static const char *const hours[] = {"morning", "afternoon", "evening", "night"};

typedef struct weather {
    const char *name, *remark, *reply;
} weather;
static const weather skies[] = {
    {"rain", "{what a rain|it is pouring outside|I am wet to the bone}",
     "{it has rained since <day>|the roof leaks again|rain is good for the fields|the road will "
     "be all mud|dry your cloak by the fire}"},
    {"snow", "{what a snow|it is snowing again|the snow is deep out there}",
     "{the pass will be closed soon|warm your hands by the fire|my boots are full of snow|the "
     "children love it, and I do not|wait until the wind turns}"},
    {"fog", "{what a fog|I could not see the road|the fog is thick today}",
     "{stay on the road in such a fog|people get lost in it every year|it comes up from the "
     "river|it will lift by noon|I could not find my own door}"},
    {"wind", "{what a wind|the wind is strong today|the wind nearly took my hat}",
     "{the shutters rattle all day|it blows from the sea|it brings colder days|hold on to your "
     "hat|two trees fell by the road}"},
    {"storm", "{what a storm|it is a terrible storm|what a thunder}",
     "{lightning struck the old oak|you had better stay inside|the dog hides under the table|it "
     "will pass before long|no one should be on the road now}"},
    {"clear sky", "{what fine weather|it is lovely outside|not a cloud in the sky}",
     "{enjoy it while it lasts|a good day for the hay|it will not stay so|one can see the "
     "mountains today|such days are rare here}"},
    {"heat", "{what a heat|it is hot today|the sun burns}",
     "{the well is nearly dry|even the flies are tired|sit in the shade|a cold drink helps|the "
     "fields need rain}"}};
static const char *const days[] = {"Monday", "Tuesday", "Friday", "Sunday", "Saturday",
                                   "market day"};

typedef struct ware {
    const char *name, *unit;
    int low, high, plural;
    const char *note; /* It is ..., They are ... */
} ware;
typedef struct trade {
    const char *name, *does, *seen; /* I ..., he or she ... */
    ware wares[7];                  /* none: sells nothing */
} trade;
static const trade trades[] = {
    {"innkeeper", "keep the fire burning and the mugs full", "keeps the tavern",
     {{"ale", "a mug of ale", 2, 4, 0, "dark and strong, from our own cellar"},
      {"stew", "a bowl of stew", 4, 7, 0, "thick with barley, carrots and mutton"},
      {"bread", "a loaf of bread", 1, 3, 0, "fresh, baked this morning"},
      {"wine", "a cup of wine", 4, 8, 0, "red, sweet and a little dusty"},
      {"bed", "a bed for the night", 6, 10, 0, "clean, with fresh straw"},
      {"cheese", "a piece of cheese", 2, 5, 0, "old, yellow and sharp"},
      {"bath", "a hot bath", 3, 6, 0, "hot enough to boil a crab"}}},
    {"cook", "cook for everyone in this house", "cooks for the whole house",
     {{"soup", "a bowl of soup", 2, 5, 0, "made of leek and potatoes"},
      {"pie", "a meat pie", 4, 7, 0, "full of beef and onions"},
      {"ham", "a slice of ham", 3, 6, 0, "smoked over beech wood"},
      {"pancakes", "a plate of pancakes", 3, 5, 1, "thin, golden and sweet"},
      {"sausages", "a pair of sausages", 3, 6, 1, "made with sage and pepper"},
      {"porridge", "a bowl of porridge", 1, 3, 0, "plain, but it fills you"},
      {"goose", "a roast goose", 12, 16, 0, "crisp outside and soft inside"}}},
    {"brewer", "brew beer and fill barrels", "brews the beer",
     {{"beer", "a mug of beer", 2, 4, 0, "brown, with a white head"},
      {"cider", "a jug of cider", 3, 6, 0, "made of sour apples"},
      {"mead", "a horn of mead", 4, 7, 0, "made with honey from the abbey"},
      {"brandy", "a flask of brandy", 7, 11, 0, "strong enough to wake a bear"},
      {"hops", "a bag of hops", 3, 5, 1, "dry and fragrant"},
      {"barrel", "an empty barrel", 5, 9, 0, "made of good oak"},
      {"malt", "a sack of malt", 4, 8, 0, "sweet and slowly roasted"}}},
    {"baker", "rise at three and bake until noon", "bakes our bread",
     {{"rolls", "a basket of rolls", 2, 4, 1, "still warm"},
      {"cake", "a honey cake", 4, 7, 0, "soft, with nuts on top"},
      {"pretzels", "a string of pretzels", 2, 5, 1, "salty and crisp"},
      {"tart", "a cherry tart", 3, 6, 0, "sweet, with a thin crust"},
      {"flour", "a sack of flour", 3, 6, 0, "white and finely ground"},
      {"biscuits", "a tin of biscuits", 3, 5, 1, "hard, and they last for weeks"},
      {"loaf", "a rye loaf", 1, 3, 0, "heavy and dark"}}},
    {"smith", "beat iron all day", "works at the forge",
     {{"sword", "a short sword", 18, 24, 0, "sharp and well balanced"},
      {"axe", "an axe", 9, 14, 0, "made for wood, but it does not mind goblins"},
      {"knife", "a knife", 4, 7, 0, "small and very sharp"},
      {"shield", "a round shield", 11, 16, 0, "covered with ox hide"},
      {"helmet", "a helmet", 10, 15, 0, "dented, but only once"},
      {"nails", "a box of nails", 2, 4, 1, "straight, every one of them"},
      {"horseshoe", "a horseshoe", 3, 5, 0, "heavy, and lucky too"}}},
    {"hunter", "hunt in the deep forest", "hunts in the forest",
     {{"bow", "a hunting bow", 12, 18, 0, "made of yew, and it bends well"},
      {"arrows", "a dozen arrows", 4, 7, 1, "straight, with goose feathers"},
      {"fur", "a wolf fur", 8, 13, 0, "grey and warm"},
      {"trap", "a rabbit trap", 3, 6, 0, "simple, but it never fails"},
      {"venison", "a leg of venison", 6, 10, 0, "fresh from <day>"},
      {"gloves", "a pair of gloves", 3, 6, 1, "made of deer leather"},
      {"horn", "a hunting horn", 5, 9, 0, "loud enough for three valleys"}}},
    {"fisher", "go out in my boat before dawn", "fishes in the bay",
     {{"trout", "a smoked trout", 3, 6, 0, "smoked over apple wood"},
      {"eel", "an eel", 4, 7, 0, "long, fat and still angry"},
      {"herring", "a salted herring", 1, 3, 0, "salty enough for a week of thirst"},
      {"net", "a fishing net", 7, 11, 0, "mended, but strong"},
      {"crab", "a boiled crab", 4, 6, 0, "fresh from the rocks"},
      {"hooks", "a box of hooks", 2, 4, 1, "sharp, so mind your fingers"},
      {"pearl", "a small pearl", 14, 20, 0, "white as milk"}}},
    {"herbalist", "gather herbs and heal the sick", "heals the sick with herbs",
     {{"salve", "a jar of salve", 3, 6, 0, "good for burns and cuts"},
      {"tea", "a bag of mint tea", 2, 4, 0, "good for the stomach"},
      {"potion", "a healing potion", 8, 13, 0, "bitter, but you will be well by morning"},
      {"candles", "a bundle of candles", 2, 5, 1, "made of beeswax"},
      {"garlic", "a string of garlic", 1, 3, 0, "good against colds and vampires"},
      {"poultice", "a warm poultice", 3, 5, 0, "made of moss and clay"},
      {"tonic", "a bottle of tonic", 5, 8, 0, "green, and it smells of frogs"}}},
    {"tailor", "sew what others tear", "makes our clothes",
     {{"cloak", "a wool cloak", 8, 13, 0, "thick, with a deep hood"},
      {"boots", "a pair of boots", 9, 14, 1, "greased, and they keep the water out"},
      {"hat", "a felt hat", 4, 7, 0, "green, with a feather"},
      {"shirt", "a linen shirt", 5, 8, 0, "white and soft"},
      {"scarf", "a red scarf", 3, 5, 0, "long enough for a giant"},
      {"belt", "a leather belt", 3, 6, 0, "wide, with a brass buckle"},
      {"needles", "a set of needles", 2, 4, 1, "made of steel"}}},
    {"trader", "buy in the south and sell in the north", "trades with the south",
     {{"map", "a map of the valley", 5, 9, 0, "nearly complete"},
      {"rope", "a coil of rope", 3, 6, 0, "as long as a church tower"},
      {"lantern", "a brass lantern", 6, 10, 0, "bright, even in the wind"},
      {"pepper", "a bag of pepper", 7, 12, 0, "from beyond the sea"},
      {"mirror", "a hand mirror", 8, 13, 0, "clear, and it does not flatter"},
      {"dice", "a pair of dice", 2, 4, 1, "honest, more or less"},
      {"compass", "a compass", 11, 16, 0, "never wrong by much"}}},
    {"farmer", "plough, sow and reap", "farms by the river",
     {{"eggs", "a dozen eggs", 2, 4, 1, "fresh, laid this morning"},
      {"apples", "a basket of apples", 2, 5, 1, "red, sweet and without worms"},
      {"milk", "a jug of milk", 1, 3, 0, "warm from the cow"},
      {"butter", "a pot of butter", 3, 5, 0, "yellow and lightly salted"},
      {"hen", "a brown hen", 5, 8, 0, "a good layer"},
      {"turnips", "a sack of turnips", 2, 4, 1, "as big as your head"},
      {"honey", "a jar of honey", 4, 7, 0, "from my own bees"}}},
    {"carpenter", "make tables, doors and now and then a coffin", "builds our houses",
     {{"stool", "a wooden stool", 4, 7, 0, "low, but it never wobbles"},
      {"chest", "an oak chest", 9, 14, 0, "heavy, with an iron lock"},
      {"ladder", "a ladder", 6, 9, 0, "long enough for any roof"},
      {"spoons", "a set of spoons", 2, 4, 1, "carved from pear wood"},
      {"staff", "a walking staff", 4, 7, 0, "light and hard to break"},
      {"cradle", "a cradle", 8, 12, 0, "painted with little stars"},
      {"flute", "a wooden flute", 3, 6, 0, "in tune, as far as I can hear"}}},
#define N_SELLERS 12
    {"guard", "watch the gate at night", "guards the gate", {{0, 0, 0, 0, 0, 0}}},
    {"bard", "sing for my supper", "sings here at night", {{0, 0, 0, 0, 0, 0}}},
    {"miller", "grind the corn of the valley", "grinds our corn", {{0, 0, 0, 0, 0, 0}}},
    {"shepherd", "mind the sheep on the hill", "minds the sheep", {{0, 0, 0, 0, 0, 0}}},
    {"sailor", "sail wherever the wind goes", "sails on the big ships", {{0, 0, 0, 0, 0, 0}}},
    {"scribe", "write letters for those who cannot", "writes letters", {{0, 0, 0, 0, 0, 0}}},
    {"monk", "pray, and brew a little", "lives in the abbey", {{0, 0, 0, 0, 0, 0}}},
    {"woodcutter", "cut wood for the winter", "cuts wood in the forest", {{0, 0, 0, 0, 0, 0}}},
    {"soldier", "fought in the old war", "fought in the war", {{0, 0, 0, 0, 0, 0}}},
    {"messenger", "ride with letters for the duke", "rides for the duke", {{0, 0, 0, 0, 0, 0}}},
    {"gravedigger", "dig graves, and people die for my work", "digs the graves",
     {{0, 0, 0, 0, 0, 0}}},
    {"midwife", "helped half this village into the world", "helps children into the world",
     {{0, 0, 0, 0, 0, 0}}}};

typedef struct place {
    const char *name, *at, *from, *way;
} place;
static const place places[] = {
    {"the old mill", "by the old mill", "from the old mill", "go north and cross the stone bridge"},
    {"the abbey", "near the abbey", "from the abbey", "follow the bells up the eastern hill"},
    {"the dark forest", "in the dark forest", "from the dark forest",
     "walk west until the trees swallow the road"},
    {"the harbour", "at the harbour", "from the harbour", "go down the street and smell the fish"},
    {"the graveyard", "in the graveyard", "from the graveyard", "take the path behind the church"},
    {"the ruined tower", "under the ruined tower", "from the ruined tower",
     "climb the northern hill and look for the crows"},
    {"the market", "at the market", "from the market", "follow the noise past the well"},
    {"the silver lake", "by the silver lake", "from the silver lake",
     "walk south along the stream for an hour"},
    {"the stone circle", "in the stone circle", "from the stone circle",
     "cross the moor, and do not leave the path"},
    {"the king's road", "on the king's road", "from the king's road", "leave by the southern gate"},
    {"the deep well", "in the deep well", "from the deep well", "it is right behind the market"},
    {"the goblin cave", "in the goblin cave", "from the goblin cave",
     "follow the dry stream east and mind your head"},
    {"the lighthouse", "near the lighthouse", "from the lighthouse",
     "walk along the shore until you see the lamp"},
    {"the vineyard", "in the vineyard", "from the vineyard", "take the sunny path to the south"},
    {"the castle", "below the castle", "from the castle", "go east, you cannot miss the towers"},
    {"the swamp", "in the swamp", "from the swamp", "go west past the willows and test each step"},
    {"the toll bridge", "under the toll bridge", "from the toll bridge",
     "follow the river down for a mile"},
    {"the quarry", "in the quarry", "from the quarry", "take the cart track to the north"}};

typedef struct verb { /* of a rumour */
    const char *past, *base, *things[12];
} verb;
static const verb verbs[] = {
    {"saw", "see",
     {"a white stag", "a grey wolf", "three masked riders", "a strange blue light",
      "a fox with two tails", "an old witch", "a giant owl", "a pale ghost", "a young dragon",
      "a talking raven", "a ship without a crew", "a man with a wooden mask"}},
    {"lost", "lose",
     {"a silver ring", "a purse full of coins", "an iron key", "a black horse", "a love letter",
      "a wedding dress", "a golden tooth", "a lucky coin", "a family sword", "a brown cow",
      "a bet against a monk", "a left boot"}},
    {"found", "find",
     {"a chest of old coins", "a broken crown", "a giant footprint", "a sleeping bear",
      "a baby goat", "a secret door", "a bottle with a letter", "a golden cup", "a human skull",
      "a bag of rubies", "a stone that glows", "a map written in blood"}},
    {"heard", "hear",
     {"strange music", "a woman singing", "bells under the water", "a child crying",
      "the howling of wolves", "drums in the ground", "a voice without a body",
      "the laughter of goblins", "horses in the night", "a scream", "an army on the march",
      "somebody digging"}},
    {"buried", "bury",
     {"a box of silver", "a dead pirate", "a magic book", "a rusty sword", "a bag of bones",
      "an old secret", "a stolen bell", "a barrel of gold", "a clay pot", "a wooden leg",
      "a stranger", "a bundle of letters"}},
    {"met", "meet",
     {"a knight without a name", "the duke's daughter", "a band of robbers", "a tiny old man",
      "a blind fortune teller", "a troll with good manners", "a runaway monk", "an elf",
      "a merchant with one eye", "the ghost of a queen", "two quarrelling giants",
      "a lost prince"}},
    {"stole", "steal",
     {"a fat goose", "a bag of flour", "the bell of the church", "a silver spoon", "a fast horse",
      "a barrel of wine", "a bishop's hat", "a painted fan", "a ladder", "two candlesticks",
      "a wheel of cheese", "a rowing boat"}}};
static const char *const whens[] = {"last night", "this morning", "two days ago", "last week",
                                    "at dawn", "at midnight", "three nights ago", "yesterday",
                                    "on market day", "before the storm"};

typedef struct task { /* of a quest */
    const char *verb, *why;
    int from; /* 1: from a place, 0: at it */
    const char *things[10];
} task;
static const task tasks[] = {
    {"find", "{I have looked everywhere else|it belonged to my mother|I cannot sleep without "
    "it|it means more to me than gold|nobody else wants to look there}", 0,
     {"the grey cat", "the lost key", "the missing letter", "the old lute", "the golden locket",
      "the runaway pig", "the blue scarf", "the family ring", "the little dog", "the red book"}},
    {"fetch", "{my back hurts and the road is long|my cart has lost a wheel|I cannot leave this "
    "place today|the boy who should do it is ill|I promised to have it by tomorrow}", 1,
     {"a sack of flour", "a barrel of apples", "a bundle of firewood", "a jar of honey",
      "a basket of eggs", "a bag of salt", "a coil of rope", "a pot of ink", "a cask of wine",
      "a wheel of cheese"}},
    {"drive off", "{the children are afraid to go there|nobody dares to walk there at night|it is "
    "bad for trade|they get bolder every day|the guards do nothing about it}", 0,
     {"the wolves", "the crows", "the rats", "the bandits", "the wild boars", "the goblins",
      "the angry geese", "the thieves", "the ghosts", "the bats"}},
    {"gather", "{a sick friend waits for that|there is a feast on <day>|my knees are too old for "
    "it|I promised that to the abbey|I have no time before <day>}", 0,
     {"a bag of mushrooms", "a basket of berries", "some silver moss", "a bunch of mint",
      "some white feathers", "a handful of acorns", "some round stones", "a bundle of reeds",
      "a jar of snails", "some blue flowers"}}};

typedef struct mood {
    const char *name;
    int deal; /* lets the price down */
    const char *greet, *open, *close, *why, *bye, *praise, *odd, *serve;
} mood;
static const mood moods[] = {
    {"cheerful", 1,
     "{hello|welcome|good <daytime>}, {friend|traveller|my dear}! {come in and sit down|what a "
     "fine <time>|pull up a chair|there is always room for one more|you are just in time}.",
     "{ha!|with pleasure.|oh, gladly!|good question!|why, of course!}",
     "{ask me anything.|what else can I do for you?|is life not good?|I could talk all day.|have "
     "a nut while you listen.}",
     "{I have good reason|the sun shines somewhere|I slept well and ate better|my sister had a "
     "baby|it costs nothing, my friend}",
     "{come back soon|safe roads|see you tomorrow, I hope|go with a song}, <friend>!",
     "{you make me blush|oh, you are kind|I will tell my mother you said that|that calls for a "
     "song}!",
     "{ha, I wish I could|what a wonderful idea, but no|you do make me laugh|ask me again after "
     "three beers}!",
     "{here you are, and enjoy|the best one, just for you|there you go, with a smile}!"},
    {"grumpy", 0,
     "{what do you want?|you again?|wipe your boots.|hm, another one.|make it quick.} {close the "
     "door.|I am busy.|sit or go.|and no singing.|}",
     "{hm.|bah.|if you must know.|must I?|pff.}",
     "{anything else, or may I work?|now leave me be.|do not make me say it twice.|and do not "
     "touch anything.|satisfied?}",
     "{my feet hurt|people ask me such things|the roof leaks and nobody pays|I was born this "
     "way|the rooster next door never sleeps}",
     "{about time|mind the step|shut the door behind you|good}, <friend>.",
     "{flattery is cheap|hm, well, it is true|save your breath|fine words, but thank you}.",
     "{do I look like a fool?|certainly not.|no, and that is my last word.|have you been "
     "drinking?}",
     "{here, and do not spill|take it|there, now you have it}."},
    {"tired", 1,
     "{oh, good <daytime>|yes, hello|welcome}{, <friend>|}. {forgive me, I was half asleep|it has "
     "been a long <time>|sit wherever you like|I have been up since four}.",
     "{let me think.|oh, well.|sorry, what was it? Yes.|if I can keep my eyes open.|one moment.}",
     "{I need to sit down.|forgive my yawning.|is it not bedtime yet?|I could sleep for a "
     "week.|my head is heavy.}",
     "{I have not slept for two nights|the baby next door cries all night|there is too much work "
     "for two hands|the dogs barked until dawn}",
     "{good night, or whatever it is|sleep well, <friend>, one of us should|goodbye, "
     "<friend>|take care}.",
     "{that is nice to hear|oh, thank you, that helps|kind words keep me awake}.",
     "{I am too tired for that|not today, please|ask somebody who has slept|no, I need my bed}.",
     "{here it is, I think|there you go|here, I nearly dropped it}."},
    {"nervous", 1,
     "{oh! You startled me|hello, hello|quick, come in|good <daytime>, I think}. {did anyone "
     "follow you?|was anybody at the door?|you are not from the duke, are you?|please speak "
     "softly.}",
     "{not so loud.|well, I, yes.|do not tell anyone I said so.|is someone listening?|um.}",
     "{did you hear that?|please do not tell anyone.|I should not talk so much.|was that the "
     "door?|I hope that is all right.}",
     "{there were riders in the village|I had a bad dream|somebody watches this house, I know "
     "it|I owe money to the wrong people}",
     "{go quickly|be careful out there|take the back door|watch your back}, <friend>.",
     "{oh, do you mean it?|really, me?|that is, well, thank you!}",
     "{what? No, no!|is this a trap?|I could get into trouble.|please do not ask me that.}",
     "{here, quickly|take it before somebody sees|here, my hands are shaking}."},
    {"proud", 0,
     "{welcome, <friend>|good <daytime>|ah, a guest}. {you have come to the right person|you may "
     "sit with me|you have surely heard of me|few houses are as fine as this one}.",
     "{naturally.|as everyone knows.|you ask the right one.|listen well.|I am glad you ask.}",
     "{nobody knows it better.|you may tell others.|remember who told you.|I am seldom "
     "wrong.|such is my way.}",
     "{my family is the oldest in the valley|I won the prize at the fair|the duke himself shook "
     "my hand|work like mine speaks for itself}",
     "{you may come again|it was an honour for you|farewell, <friend>|tell them you met me}.",
     "{I know|quite right|you have good eyes|one does what one can, and I can}.",
     "{that is beneath me.|a person like me?|I have a name to lose.|surely you are joking.}",
     "{only the best|you will not find better|treat it with respect}."},
    {"sly", 0,
     "{well, well|look who is here|good <daytime>, my friend|come closer}. {your purse looks "
     "heavy|I have just what you need|let us talk business|you seem clever, I like that}.",
     "{between you and me.|for you, gladly.|ah, that.|I hear many things.|well now.}",
     "{we understand each other.|you did not hear it from me.|everything has its price.|a coin "
     "would help my memory.|trust me.}",
     "{it keeps people guessing|a fox has to eat too|honest people are poor people|I know "
     "something that you do not}",
     "{until next time, <friend>|bring your purse again|I will remember you|we shall meet again}.",
     "{sweet words, what do they cost me?|now you want something.|I could say the same of you.}",
     "{that would cost you dearly|maybe, for a hundred coins|I know a man who might|not where "
     "people can see us}.",
     "{a fine choice, and no questions|pleasure doing business|here, you will thank me}."},
    {"shy", 1,
     "{oh, hello|um, good <daytime>|hello, I mean, welcome}. {I did not see you.|can I help?|you "
     "may sit here, if you like.|sorry about the mess.}",
     "{um.|well, I think so.|if you really want to know.|oh.|I am not sure, but.}",
     "{I hope that helps.|sorry, I talk too much.|is that all right?|please do not laugh.|I "
     "think.}",
     "{I do not know where to look|there are so many people here|I never know what to say|my "
     "brother used to do the talking}",
     "{goodbye, <friend>|it was nice to talk|maybe you will come again|bye}.",
     "{oh, I, thank you|nobody ever said that to me|now my ears are red}.",
     "{I could not do that.|oh no, not me!|what would people say?|please ask somebody else.}",
     "{here, I hope you like it|there, if it is right|please, take it}."},
    {"sad", 1,
     "{good <daytime>, if it is good|oh, hello|welcome, I suppose}. {do not mind me|it is quiet "
     "without him|sit down, nobody else does|I was only thinking of old days}.",
     "{ah, well.|it hardly matters, but.|once I would have laughed.|I suppose.|oh.}",
     "{but what does it matter.|nothing is as it was.|forgive me, I am poor company.|time takes "
     "everything.|let us not talk of it.}",
     "{my old dog died|my brother went to sea and never wrote|my best friend moved away|it would "
     "have been our wedding day}",
     "{everybody leaves|goodbye, <friend>, take care|do not forget me|farewell}.",
     "{thank you, I needed that|that is the first good word today|you are kind to a sad heart}.",
     "{I have no heart for that.|what would be the use?|not today, maybe never.|leave me with my "
     "thoughts.}",
     "{here, may it bring you more joy|take it|I hope it comforts you}."},
    {"friendly", 1,
     "{hello|good <daytime>|welcome, <friend>}, {it is good to see a new face.|make yourself at "
     "home.|what brings you here?|sit down and warm yourself.}",
     "{sure.|let me tell you.|happy to help.|of course.|well, my friend.}",
     "{let me know if you need more.|I hope that helps.|you are welcome here.|just ask.|that is "
     "how it is.}",
     "{it is my nature|people were kind to me once|a smile opens doors|my grandmother taught me "
     "so}",
     "{safe travels, <friend>|take care of yourself|come by again|goodbye, and good luck}.",
     "{how kind of you|thank you, my friend|that warms my heart|and you are a good guest}.",
     "{I am afraid I cannot|sorry, that is beyond me|I would if I could|let us talk of something "
     "else}.",
     "{here you go|there, I picked a good one|please, and thank you}."},
    {"bored", 0,
     "{oh, a customer|hm, hello|finally somebody|good <daytime>, as they say}. {nothing ever "
     "happens here|I was counting flies|tell me something new|I know every crack in this table}.",
     "{sure, whatever.|why not.|again?|that old thing.|if it passes the time.}",
     "{and that was the best part of my day.|so it goes.|wake me if something "
     "happens.|yawn.|every day the same.}",
     "{nothing happens here|I have heard every story twice|even the rats left|I wanted to see the "
     "world, and look at me}",
     "{oh, going already?|bye.|same time tomorrow, I guess.|have fun, <friend>.}",
     "{if you say so|that is new, at least|nice, say it again}.",
     "{that would be something, but no|too much work|no, though it sounds more fun than "
     "this|maybe in another life}.",
     "{here|there you have it|one more sold, hurrah}."},
    {"pleased", 1,
     "{welcome back|good <daytime> again}, <friend>.",
     "{for you, gladly.|since you ask so nicely.|yes, of course.|with a smile.}",
     "{it is good to talk to you.|you have manners.|ask away.|I feel better already.}",
     "{your words did it|you were kind to me|somebody finally said something nice}",
     "{come again, <friend>|you are always welcome|it was a pleasure|until soon}.",
     "{stop it, you|that is sweet of you|you are too kind}!",
     "{for you I almost would|sorry, not even for you|you are funny}.",
     "{here, with my thanks|a good one for a good guest|there you are, dear}."},
    {"angry", 0,
     "{what|you|out with it}!",
     "{grr.|I should throw you out.|after what you said?|do not push me.}",
     "{now go away.|watch your tongue.|I will not forget it.|say one more word.}",
     "{you know what you said|you were rude to me|some people have no manners}",
     "{out|good riddance|and stay away|finally}!",
     "{too late for that|do not try that now|words, only words}.",
     "{get out of my sight|not for a hundred coins|never, and least of all for you}.",
     "{take it and go|there|I do this for the coins only}."}};
#define N_MOODS 10 /* that a scene may begin with */
enum { PLEASED = 10, ANGRY = 11 };

static const char *const lore[][2] = {
    {"dragons", "{the last one was seen fifty years ago|they sleep on gold and dream of sheep|my "
    "uncle met one and came home without a beard|never wake one before noon}"},
    {"the king", "{he is old, and his sons quarrel|he lives far away and so do his promises|his "
    "face is on every coin|they say he plays chess against himself}"},
    {"the war", "{it took many good people|we won, or so they told us|nobody remembers how it "
    "began|I still hear the drums}"},
    {"elves", "{they live in the east and never hurry|they sing well and pay badly|one of them "
    "once asked me the way to the moon|do not play cards with them}"},
    {"magic", "{it is mostly smoke|it always costs more than it gives|my grandmother could calm a "
    "storm|the wise leave it alone}"},
    {"ghosts", "{they only come to those who owe something|there is one upstairs, a quiet "
    "one|they fear salt and loud singing|I never believed in them until last winter}"},
    {"the moon", "{it pulls at the sea and at fools|never cut your hair when it is full|the "
    "wolves know it better than I do|some say it is a lamp}"},
    {"taxes", "{they rise every spring like the river|the collector comes on Friday|first they "
    "take the cow and then the milk|I pay and I curse}"},
    {"love", "{it comes when you look away|it is like soup, best when warm|I was in love once, "
    "and it rained|ask the bard, not me}"},
    {"goblins", "{they steal spoons and anything that shines|loud noise drives them off|they live "
    "in the caves in the east|they are afraid of geese}"},
    {"the sea", "{it gives and it takes|there are islands nobody has named|it is never the same "
    "twice|a calm sea makes a bad sailor}"},
    {"gold", "{it makes wise people stupid|there was some in the river once|you cannot eat it|it "
    "shines, and that is all it does}"},
    {"winter", "{it comes early this year|the wolves come down from the hills|stack your wood "
    "before the first frost|we tell stories and wait}"},
    {"the duke", "{he hunts all day and taxes all night|his castle has forty rooms and one "
    "bath|he is not as bad as his father|never mention his nose}"},
    {"wolves", "{they hunt in the valley when snow falls|a fire keeps them away|they are more "
    "afraid than we are|count your sheep twice}"},
    {"witches", "{one lives in the swamp and sells soap|they are only lonely, most of them|be "
    "polite and take nothing|they know when you lie}"},
    {"pirates", "{they drink rum and sing out of tune|their flag is black and their teeth are "
    "too|two of them used to live here quietly|they bury more than they can find}"},
    {"the forest", "{the paths move at night|my father got lost there for a week|listen to the "
    "birds, they know|there are trees older than the king}"},
    {"giants", "{they are gone, only their chairs are left|the hills are their beds, people "
    "say|one of them built the stone bridge|they could not count to three}"},
    {"the mountains", "{there is snow on them in summer|nobody crosses them in spring|dwarves dig "
    "under them|they look near, but they are not}"},
    {"treasure", "{every map of it is false|somebody digs and somebody else gets rich|there is "
    "none here, I have looked|the real one is a dry roof}"},
    {"music", "{it is bread for the heart|the bard knows only three songs|I used to play the "
    "fiddle|without it this would be a barn}"},
    {"bandits", "{they wait by the toll bridge|travel in company and by day|their chief was a "
    "baker once|hide your coins in your boot}"},
    {"cats", "{a house without one belongs to the mice|they own us, not the other way round|ours "
    "sleeps on the oven|they see things that we do not}"},
    {"the abbey", "{the monks sing before sunrise|their honey is the best in the county|a saint's "
    "finger lies under the altar|they take in anybody who can sweep}"},
    {"the mayor", "{he sleeps through every meeting|he wears the chain even in his bath|nobody "
    "voted for him, and still he won|ask him about his roses}"},
    {"dwarves", "{they count everything twice|their bread breaks teeth and hammers|they came for "
    "the copper and stayed for the beer|never joke about their beards}"},
    {"trolls", "{they guard bridges and hate riddles|sunlight turns them to stone|one of them "
    "collects shoes|pay the toll and do not argue}"},
    {"spring", "{the cranes return and so do the tax collectors|everything smells of wet "
    "earth|lambs jump about like fleas|the stream floods the lower meadow}"},
    {"the harvest", "{it was poor this summer|every hand is needed, even yours|we dance when the "
    "last cart is in|hail ruined half the barley}"},
    {"bears", "{they are fond of berries and quiet|never run from one, and never feed one|one "
    "sleeps above the quarry|they walk like old sailors}"},
    {"horses", "{a good one is worth two cousins|they smell fear and carrots|mine kicked the "
    "bishop|look at the teeth before you pay}"},
    {"the plague", "{it passed us by, thank heaven|people painted crosses on their doors|we "
    "burned the blankets and waited|do not speak of it at the table}"},
    {"fairies", "{they braid the manes of ponies|leave them cream and they mend your socks|iron "
    "scares them|the last ring of them is behind the orchard}"},
    {"vampires", "{they must be invited, so be rude|garlic works better than swords|one of them "
    "owned the castle, long ago|they cast no shadow and pay no rent}"},
    {"weddings", "{there is one every autumn|the food is better than the speeches|I always cry, "
    "do not tell anyone|the groom fainted at the last one}"},
    {"the school", "{there are nine pupils and one book|the teacher lost his voice and his "
    "patience|my nephew learned to spell turnip|it used to be a stable}"},
    {"ships", "{the big ones come in with the tide|rats leave first, so watch the rats|every one "
    "of them has a woman's name|I get seasick in a bathtub}"},
    {"medicine", "{willow bark helps a headache|the doctor pulls teeth and faces|sleep is the "
    "cheapest cure|my aunt swears by vinegar}"},
    {"the stars", "{they guide captains and lovers|one fell into the swamp in my youth|an "
    "astronomer counted them and went mad|the bright one is called the Nail}"},
    {"spiders", "{they eat flies, so let them live|a big one guards our cellar|their webs stop "
    "bleeding|I scream, but quietly}"},
    {"the prison", "{the soup there is thin and grey|it stands empty except on Mondays|the jailer "
    "is my cousin|one man dug out with a spoon}"},
    {"chess", "{the monks play it for days|I always lose my queen|it is war for people with clean "
    "fingers|the board over there lacks a bishop}"},
    {"poetry", "{it rhymes when it must|a poet ate here once and paid with verses|mine are about "
    "cabbages|it is shorter than a sermon, at least}"}};
static const char *const odd[] = {
    "can you teach me to fly", "will you marry me", "can I sleep in your boots",
    "do you want to buy my shadow", "can you turn me into a frog", "may I keep your hat",
    "will you fight a bear with me", "can I borrow a hundred coins", "shall we rob the duke",
    "can you hide a horse for me", "will you sing for me on the table", "can I be the king here",
    "do you want to race me to the river", "can you tell me what I dreamed",
    "may I paint your cat blue", "shall we dig a tunnel to the sea",
    "can you lift this table with one finger",
    "will you adopt me",
    "do you sell wishes",
    "can we swap noses",
    "may I ring the church bell at midnight",
    "will you dance with a broom",
    "can you hide me from my aunt",
    "shall we start a circus",
    "do you want to wrestle a goose",
    "can I pay with buttons",
    "will you read my palm",
    "may I keep a donkey upstairs",
    "could you cook my hat",
    "shall we wake the dragon"};
static const char *const jokes[] = {
    "why do bees hum? They have forgotten the words",
    "a horse came in once, and the cook asked about the long face",
    "what has a neck and no head? A bottle",
    "my dog can count. I ask what two minus two is, and the dog says nothing",
    "why did the miller sit on the clock? To be on time",
    "what gets wetter the more it dries? A towel",
    "a goblin walked into a door. The door was wiser afterwards",
    "how do you wake a dragon? From very far away",
    "what has teeth and cannot bite? A comb",
    "a monk, a thief and a duke shared a bench. Now the bench is gone",
    "what runs all day and never gets tired? The river",
    "why did the skeleton stay at home? It had no body to go with",
    "a farmer won a prize. He was outstanding in his field",
    "what do you call a troll with a map? Still lost",
    "why did the candle quarrel? It was short tempered, and it lost its head",
    "two eggs sat in a pan. One said it was hot. The other screamed, a talking egg",
    "what has hands but cannot clap? A clock",
    "why was the broom late? It overslept",
    "my cousin fell into the brandy. It took three men to pull him out, he kept fighting them",
    "what goes up when rain comes down? An umbrella"};
/* What one asks anybody, and what they say. */
static const char *const chats[][2] = {
    {"do you have children", "{two, and they eat like six|none, but I have a cat|a daughter, and "
    "she sails|three sons, all taller than me}"},
    {"do you live alone", "{with my mother and eleven geese|yes, and I like the silence|with my "
    "sister, who snores|there is a mouse, if that counts}"},
    {"what is your favourite dish", "{dumplings with plum sauce|anything that somebody else "
    "cooked|fried mushrooms|pea soup with bacon, like at home}"},
    {"where were you born", "{in this very street|on a boat, in the middle of a storm|beyond the "
    "mountains, in a village of potters|nobody wrote it down}"},
    {"what are you afraid of", "{of thunder, since I was small|of owing money|of the dark stairs "
    "to the cellar|of geese, and I am not ashamed}"},
    {"what makes you happy", "{the smell of fresh hay|a full purse and an empty street|my garden "
    "in June|the laughter of children}"},
    {"do you believe in fate", "{I believe in breakfast|the stars decide, and we pretend|no, but "
    "I knock on wood|sometimes, when I lose at cards}"},
    {"have you ever travelled", "{as far as the capital, and it was too loud|never, my bones like "
    "it here|once, with a caravan across the desert|only in my dreams}"},
    {"what would you do with a thousand coins", "{I would buy a vineyard and sleep|pay my debts "
    "and run|build a roof that does not leak|give half away and hide the rest}"},
    {"who is your best friend", "{an old donkey called Bishop|the ferryman, since our school "
    "days|my brother, on his good days|the one who still lends me money}"},
    {"can you read", "{a little, with my finger under the line|every morning, in an old "
    "almanac|no, but I know every picture in the church|yes, and write too, if somebody sharpens "
    "the pen}"},
    {"do you play any game", "{draughts, against the wall|cards, but never for money "
    "again|skittles on Sundays|I guess the weight of pumpkins at the fair}"},
    {"what did you dream of as a child", "{of being a knight on a spotted pony|of flying over the "
    "rooftops|of a kitchen full of cake|of joining the travelling acrobats}"},
    {"do you sing", "{only when the barrel is empty|in the choir, second row|my neighbours begged "
    "me to stop|lullabies, nothing else}"},
    {"what is the secret of a good life", "{sleep early and forgive late|good shoes and few "
    "relatives|never lend your ladder|work, rest, and a bit of cheese}"},
    {"any advice for a traveller", "{keep your socks dry and your knife sharp|drink upstream, "
    "sleep uphill|never trust a free meal|be kind to ferrymen and cooks}"},
    {"do you miss anything", "{my youth, and my teeth|the sea breeze|the songs we sang at "
    "harvest|an old friend who left one autumn}"},
    {"what was your worst day", "{when lightning burned our barn|the day of the flood|when I lost "
    "everything at dice|yesterday, my tooth, you understand}"}};
