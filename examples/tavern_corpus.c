/* tavern_corpus.c - writes scenes in a tavern: what a small model learns to talk from.
 *
 *     cc -O2 examples/tavern_corpus.c -o tavern_corpus -lpthread
 *     ./tavern_corpus --scenes 40000 --seed 1 >tavern.txt
 *
 * A scene begins with facts, which a game can fill in, and goes on as dialogue:
 *
 *     Scene: The Copper Kettle, evening, rain.
 *     Mira: innkeeper, grumpy. Sells ale 3, stew 5.
 *     Tobin: miller, sad.
 *     Rumour: Hugo the smith saw a white stag by the old mill last night.
 *     Quest: fetch a jar of honey from the abbey. Reward 6.
 *     Purse: 12.
 *     Player: How much is the stew?
 *     Mira (grumpy): Five coins, and mind the bowl.
 *     Event: Player buys the stew for 5 and has 7 left.
 *
 * What is said agrees with the facts, and with what was said and bought before. An empty line ends
 * the scene. Scene number i is a function of (seed, i). A scene is held out when a hash of its
 * facts says so, so that no scene of one part is in the other, whatever the seeds. */
static const char usage[] =
    "usage: tavern_corpus [--scenes N] [--seed S] [--held-out] [--end TEXT]\n"
    "  --scenes N   how many (default 1000)\n"
    "  --seed S     another seed, other scenes (default 1)\n"
    "  --held-out   the twentieth part that is kept from training, instead of the rest\n"
    "  --end TEXT   the line after a scene, such as \"<|endoftext|>\" (default: an empty line)\n";
#include "common.h"

#include "tavern_words.h"

#define N(table) ((int)(sizeof table / sizeof *table))

/* ---- A scene --------------------------------------------------------------------------------- */

typedef struct person {
    const char *name;
    int female, mood, first_mood;
    const trade *job;
} person;

typedef struct slot {
    const char *name, *text; /* text may hold {} [] <> too */
    char own[200];
} slot;

enum { /* what holds now, for the topics below */
    MAIN = 1,       /* the one who sells speaks */
    SECOND = 2,     /* the other one does */
    TWO = 4,        /* there is another one */
    HEARSAY = 8,    /* the rumour is not about the speaker */
    SELF = 16,      /* it is */
    HEARD = 32,     /* it was told */
    QUEST = 64,     /* there is a quest */
    TOLD = 128,     /* it was told */
    TOOK = 256,     /* the player does it */
    NAMED = 512,    /* the player told his name */
    BOUGHT = 1024,  /* something */
    RUDE = 2048,    /* the player was, to the one who speaks */
    ANGER = 4096    /* the speaker is angry */
};

typedef struct scene {
    uint64_t seed, number, n_random;
    char text[8192];
    size_t n, line; /* bytes; where the last line's words begin */
    slot slots[96];
    int n_slots;
    person cast[2], *npc; /* npc speaks */
    int n_cast, subject;  /* of the rumour: 1 = the second one, -1 = somebody else */
    int flags, purse;
    int fresh; /* flags that the last exchange set: one asks on about that */
    const ware *wares[4];
    int price[4], asked[4], dealt[4], n_wares, w; /* w: what the talk is about */
    int afford, deal;
    uint64_t used; /* topics */
} scene;

static int pick(scene *s, int n) {
    return (int)((uint64_t)sm_random(s->seed, s->number, s->n_random++) * (uint64_t)n >> 32);
}

static slot *slot_new(scene *s, const char *name) {
    int i;
    for (i = 0; i < s->n_slots; i++)
        if (!strcmp(s->slots[i].name, name)) return &s->slots[i];
    if (s->n_slots == N(s->slots)) exit(3);
    s->slots[s->n_slots].name = name;
    return &s->slots[s->n_slots++];
}

static void set(scene *s, const char *name, const char *text) { slot_new(s, name)->text = text; }

COMMON_PRINTF(3, 4) static void setf(scene *s, const char *name, const char *fmt, ...) {
    slot *x = slot_new(s, name);
    va_list args;
    va_start(args, fmt);
    COMMON_VSNPRINTF(x->own, sizeof x->own, fmt, args);
    va_end(args);
    x->text = x->own;
}

/* What <name> stands for: the speaker's mood has words of its own. */
static const char *slot_text(const scene *s, const char *name, size_t n) {
    const mood *m = s->npc ? &moods[s->npc->mood] : moods;
    const char *const own[] = {"mood", m->name, "greet", m->greet, "why", m->why, "bye", m->bye,
                               "praise", m->praise, "no", m->odd, "serve", m->serve};
    int i;
    for (i = 0; i < N(own); i += 2)
        if (strlen(own[i]) == n && !memcmp(own[i], name, n)) return own[i + 1];
    for (i = 0; i < s->n_slots; i++)
        if (strlen(s->slots[i].name) == n && !memcmp(s->slots[i].name, name, n))
            return s->slots[i].text;
    say(stderr, "tavern_corpus: nothing stands for <%s\n", name);
    exit(3);
}

static void put(scene *s, char c) {
    if (s->n + 1 < sizeof s->text) s->text[s->n++] = c;
    s->text[s->n] = 0;
}

/* Writes text up to its end or to the mark that closes this part of it, where it returns; on = 0:
 * only looks for that place. */
static const char *expand(scene *s, const char *t, int on) {
    const char *part, *end;
    int n, keep;
    for (; *t && !strchr("|}]", *t); t++) {
        if (*t == '[') {
            keep = on && pick(s, 2);
            t = expand(s, t + 1, keep);
        } else if (*t == '{') {
            for (part = t + 1, n = 1; *(end = expand(s, part, 0)) == '|'; part = end + 1) n++;
            for (part = t + 1, n = on ? pick(s, n) : 0; n > 0; n--) part = expand(s, part, 0) + 1;
            if (on) expand(s, part, 1);
            t = end;
        } else if (*t == '<') {
            end = strchr(t, '>');
            if (on) expand(s, slot_text(s, t + 1, (size_t)(end - t - 1)), 1);
            t = end;
        } else if (on) put(s, *t);
    }
    return t;
}

/* A line of dialogue or of facts: "who: words". */
static void begin(scene *s, const char *who) {
    for (; *who; who++) put(s, *who);
    put(s, ':');
    put(s, ' ');
    s->line = s->n;
}

/* Sentences get their capital letter, two blanks become one. */
static void finish(scene *s) {
    size_t i, n = s->line;
    int start = 1;
    for (i = s->line; i < s->n; i++) {
        char c = s->text[i];
        if (c == ' ' && (n == s->line || s->text[n - 1] == ' ')) continue;
        if (start && c >= 'a' && c <= 'z') c = (char)(c - 'a' + 'A');
        if (c != ' ') start = c == '.' || c == '!' || c == '?';
        s->text[n++] = c;
    }
    while (n > s->line && s->text[n - 1] == ' ') n--;
    s->n = n;
    put(s, '\n');
}

static void line(scene *s, const char *who, const char *words) {
    begin(s, who);
    expand(s, words, 1);
    finish(s);
}

/* What the speaker answers, in his or her mood's words. */
static void answer(scene *s, const char *words, int plain) {
    const mood *m = &moods[s->npc->mood];
    char who[64];
    format(who, sizeof who, "%s (%s)", s->npc->name, m->name);
    begin(s, who);
    if (!plain && pick(s, 3) == 0) expand(s, m->open, 1), put(s, ' ');
    expand(s, words, 1);
    if (!plain && pick(s, 4) == 0) put(s, ' '), expand(s, m->close, 1);
    finish(s);
}

static const char *coins(int n) {
    static char text[8][32];
    static int next;
    static const char *const small[] = {
        "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
        "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
        "nineteen", "twenty", "twenty-one", "twenty-two", "twenty-three", "twenty-four",
        "twenty-five", "twenty-six", "twenty-seven", "twenty-eight", "twenty-nine", "thirty"};
    char *out = text[next++ & 7];
    format(out, sizeof text[0], "%s coin%s", small[n], n == 1 ? "" : "s");
    return out;
}

static const char *article(const char *word) { return strchr("aeiou", *word) ? "an" : "a"; }

/* ---- Wares ----------------------------------------------------------------------------------- */

/* "a mug of ale, a bowl of stew and a loaf of bread", with prices or without. */
static void set_list(scene *s) {
    char list[200] = "", prices[400] = "";
    int i;
    for (i = 0; i < s->n_wares; i++) {
        const char *mark = i == 0 ? "" : i + 1 < s->n_wares ? ", " : " and ";
        size_t n = strlen(list), p = strlen(prices);
        format(list + n, sizeof list - n, "%s%s", mark, s->wares[i]->unit);
        format(prices + p, sizeof prices - p, "%s%s for %s", mark, s->wares[i]->unit,
               coins(s->price[i]));
    }
    setf(s, "list", "%s", list);
    setf(s, "prices", "%s", prices);
}

static void set_ware(scene *s, int i) {
    const ware *x = s->wares[i];
    s->w = i;
    set(s, "ware", x->name);
    set(s, "unit", x->unit);
    set(s, "note", x->note);
    set(s, "is", x->plural ? "are" : "is");
    set(s, "does", x->plural ? "do" : "does");
    set(s, "it", x->plural ? "they" : "it");
    setf(s, "price", "%s", coins(s->price[i]));
    set(s, "again", s->asked[i] ? "{as I said, |again, |I told you, }" : "");
}

static int any_ware(scene *s) {
    set_ware(s, pick(s, s->n_wares));
    return 1;
}

static int asked_ware(scene *s) {
    set_ware(s, pick(s, s->n_wares));
    return s->asked[s->w];
}

static void ware_asked(scene *s) { s->asked[s->w] = 1; }

static int want_ware(scene *s) {
    if (!asked_ware(s) && pick(s, 2)) asked_ware(s); /* rather what was asked about */
    s->afford = s->price[s->w] <= s->purse;
    set(s, "sale", s->afford      ? "{that is|that makes|} <price>{, please|}. <serve>"
                   : s->purse > 0 ? "{that is <price>|the <ware> <is> <price>}, {and|but} you "
                   "{have "
                                    "only|only have} <purse>."
                                  : "{that is|I want} <price>, and your purse is empty.");
    return 1;
}

static void ware_bought(scene *s) {
    const ware *x = s->wares[s->w];
    s->asked[s->w] = 1;
    if (!s->afford) return;
    s->purse -= s->price[s->w];
    s->flags |= BOUGHT;
    set(s, "last", x->unit);
    setf(s, "paid", "%s", coins(s->price[s->w]));
    setf(s, "purse", "%s", coins(s->purse));
    setf(s, "event", "Player buys the %s for %d and has %d left.", x->name, s->price[s->w],
         s->purse);
    line(s, "Event", "<event>");
}

static int cheaper_ware(scene *s) {
    any_ware(s);
    if (s->price[s->w] < 3 || s->dealt[s->w]) return 0;
    s->deal = moods[s->npc->mood].deal;
    s->dealt[s->w] = s->asked[s->w] = 1;
    setf(s, "less", "%s", coins(s->price[s->w] - 1));
    set(s, "dealt", s->deal ? "{fine|very well|all right|for you}, <less> {for the <ware>|then}."
                            : "{no|never|not a chance|certainly not}. {the price is "
                            "<price>|<price>, "
                              "and that is cheap|<price>, as for everybody}.");
    return 1;
}

static void ware_dealt(scene *s) {
    if (!s->deal) return;
    s->price[s->w]--;
    set_list(s);
    setf(s, "event", "The %s now cost%s %d.", s->wares[s->w]->name,
         s->wares[s->w]->plural ? "" : "s", s->price[s->w]);
    line(s, "Event", "<event>");
}

/* Something that somebody else sells. */
static int missing_ware(scene *s) {
    const trade *t = &trades[pick(s, N_SELLERS)];
    const ware *x = &t->wares[pick(s, 7)];
    if (t == s->npc->job) return 0;
    set(s, "missing", x->name);
    set(s, "missing_unit", x->unit);
    setf(s, "seller", "%s %s", article(t->name), t->name);
    return 1;
}

/* ---- Moods and quests ------------------------------------------------------------------------ */

static void change_mood(scene *s, int to) {
    if (s->npc->mood == to) return;
    s->npc->mood = to;
    setf(s, "event", "%s is %s now.", s->npc->name, moods[to].name);
    line(s, "Event", "<event>");
}
static int insult(scene *s) { return s->npc->mood != ANGRY; }
static void insulted(scene *s) { change_mood(s, ANGRY); }
static void praised(scene *s) {
    if (s->npc->mood != ANGRY && !moods[s->npc->mood].deal) change_mood(s, PLEASED);
}
static void excused(scene *s) {
    s->flags &= ~RUDE;
    change_mood(s, s->npc->first_mood);
}
static void quest_taken(scene *s) { line(s, "Event", "Player takes the quest."); }

/* ---- What one can talk about ----------------------------------------------------------------- */

typedef struct topic {
    int need, avoid, set, weight; /* flags */
    int plain; /* 1: nothing is put around the answer; 2: the question is about the name */
    const char *ask;
    int (*prepare)(scene *s); /* 0: not now */
    void (*heard)(scene *s);  /* before the answer */
    const char *reply;
    void (*after)(scene *s);
} topic;

static const topic topics[] = {
    {0, 0, 0, 6, 2, "{who are you|what is your name|may I ask your name|what do they call you}?",
     NULL, NULL, "{I am|my name is|they call me} <npc>{.|, the <trade>.|, and I <does_i>.}", NULL},
    {0, 0, 0, 5, 0, "{what do you do here|what is your trade|what is your work|how do you live}?",
     NULL, NULL, "{I am <a_trade>.|<a_trade>.|} I <does_i>.", NULL},
    {MAIN, 0, 0, 14, 0,
     "{what do you sell?|what do you have today?|what can I buy here?|show me what you have.}",
     NULL,
     NULL, "{I have|I sell|today I have|you can have} {<list>|<list>|<prices>}.", NULL},
    {MAIN, 0, 0, 12, 0,
     "{how much <is> the <ware>|what <does> the <ware> cost|what is the price of the <ware>}?",
     any_ware, NULL, "<again>{the <ware> <is> <price>|<price>|<price> for the <ware>}.",
     ware_asked},
    {MAIN, 0, 0, 10, 0,
     "{how much <is> the <ware>|and the <ware>|tell me the price of the <ware>, please}?", any_ware,
     NULL, "<again>{the <ware> <is> <price>|<price>|that would be <price>}.", ware_asked},
    {MAIN, 0, 0, 20, 0,
     "{remind me, what was the price of the <ware>|what was the price of the <ware> again}?",
     asked_ware, NULL, "<again>{<price>|<price> for the <ware>}.", NULL},
    {MAIN, 0, 0, 14, 1, "{I will take|give me|I would like|let me have} <unit>{, please|}.",
     want_ware, NULL, "<sale>", ware_bought},
    {MAIN, 0, 0, 9, 1, "{then I will have|all right, I will buy|I also want} <unit>.", want_ware,
     NULL, "<sale>", ware_bought},
    {MAIN, 0, 0, 8, 0,
     "{can you make the <ware> cheaper|is that your best price for the <ware>|could the <ware> "
     "cost "
     "a little less}?", cheaper_ware, NULL, "<dealt>", ware_dealt},
    {MAIN, 0, 0, 8, 0, "{<is> the <ware> any good|what about the <ware>|how <is> the <ware>}?",
     any_ware, NULL, "{<it> <is> <note>|the <ware> <is> <note>}.", NULL},
    {MAIN, 0, 0, 7, 0,
     "{do you have <missing_unit>?|I would like <missing_unit>.|how much for <missing_unit>?}",
     missing_ware, NULL,
     "{no <missing> here|I have no <missing>|sorry, no <missing>}. {I have <list>|ask "
     "<seller>|I only have <list>}.", NULL},
    {SECOND, 0, 0, 5, 0, "{what do you sell|do you sell anything}?", NULL, NULL,
     "{I sell nothing|nothing|nothing at all}. {ask <main>|<main> is the one who sells here}.",
     NULL},
    {0, 0, 0, 4, 0, "{what is this place called|where am I|what is the name of this tavern}?", NULL,
     NULL, "{this is|you are in|it is called} the <tavern>.", NULL},
    {0, 0, 0, 6, 0, "<remark>{.|!}", NULL, NULL, "<sky>.", NULL},
    {0, 0, 0, 8, 0, "{why are you so <mood>|you seem <mood>, why is that|what makes you so "
    "<mood>}?",
     NULL, NULL, "{<why>|because <why>|you want to know? <why>}.", NULL},
    {HEARSAY, HEARD, HEARD, 30, 0,
     "{what is the news?|any rumours?|have you heard anything?|what do people say?|tell me the "
     "latest.|what is new around here?}", NULL, NULL,
     "{they say that|people say that|I heard that|word is that|have you heard?} <who> <past> "
     "<thing> <at> <when>.", NULL},
    {HEARD | HEARSAY, 0, 0, 12, 0, "{where was that|where did that happen|and where}?", NULL, NULL,
     "{<at>|it was <at>|that was <at>, they say}.", NULL},
    {HEARD | HEARSAY, 0, 0, 12, 0, "{when was that|when did it happen|and when}?", NULL, NULL,
     "{<when>|it was <when>|<when>, people say|I think it was <when>}.", NULL},
    {HEARD | HEARSAY, 0, 0, 9, 0, "{who was it again|who do you mean|who was that}?", NULL, NULL,
     "{<who>|it was <who>|<who>, as I told you}.", NULL},
    {HEARD | HEARSAY, 0, 0, 9, 0, "what did <rname> <base>?", NULL, NULL,
     "{<thing>, no less|<thing>, so they say|<rhe> <past> <thing>|<thing>}.", NULL},
    {HEARD | HEARSAY, 0, 0, 9, 0, "{do you believe it|is that true|are you sure}?", NULL, NULL,
     "{every word|not a word|half of it|<rname> never lies|<rname> talks a lot|why not, I know "
     "<rname>|ask <rname>, not me}.", NULL},
    {HEARD | HEARSAY, 0, 0, 9, 0, "{who is <rname>|do you know <rname>}?", NULL, NULL,
     "{<rname> is <a_rtrade>|<rname> is the <rtrade>|the <rtrade>}. <rhe> <rseen>.", NULL},
    {HEARD | SELF, 0, 0, 30, 0, "{did you really <base>|is it true that you <past>} <thing>?", NULL,
     NULL, "{yes, <at>|yes, it was <when>|it is true, <at>, <when>|who told you? But yes, <at>}.",
     NULL},
    {MAIN | QUEST, TOLD, TOLD, 26, 0,
     "{do you need help|is there any work|do you have a job for me|can I do something for you}?",
     NULL, NULL,
     "{yes|indeed|there is something}. {I need someone to <qverb> <qthing> <qat>|somebody must "
     "<qverb> <qthing> <qat>|<qverb> <qthing> <qat>, and I pay <reward>}.", NULL},
    {MAIN, QUEST, 0, 5, 0, "{do you need help|is there any work|do you have a job for me}?", NULL,
     NULL, "{no|not today|not now}, {I have all the help I need|there is nothing to do|ask "
     "somebody "
     "else}.", NULL},
    {MAIN | QUEST | TOLD, 0, 0, 12, 0, "{where do I have to go|where is that|how do I get there}?",
     NULL, NULL, "{to <qplace>. <qway>|<qway>}.", NULL},
    {MAIN | QUEST | TOLD, 0, 0, 14, 0,
     "{what do you pay|what is the reward|what is in it for me}?", NULL, NULL,
     "{<reward>|<reward>, when it is done|I pay <reward>|<reward>, not one more}.", NULL},
    {MAIN | QUEST | TOLD, 0, 0, 10, 0, "{why does it matter to you|why do you not do it yourself}?",
     NULL, NULL, "{<qwhy>|because <qwhy>}.", NULL},
    {MAIN | QUEST | TOLD, TOOK, TOOK, 20, 0,
     "{I will do it|count on me|you can rely on me|consider it done}.", NULL, NULL,
     "{good|thank you|splendid}. {<qverb> <qthing>, and the <reward> are yours|I will have the "
     "<reward> ready|come back when it is done}.", quest_taken},
    {MAIN | TOOK, 0, 0, 14, 0, "{what was I to do again|remind me, what is my task}?", NULL, NULL,
     "{<qverb> <qthing> <qat>|you promised to <qverb> <qthing> <qat>}.", NULL},
    {0, NAMED, NAMED, 10, 0, "{I am|my name is|call me|people call me} <player>[, by the way].",
     NULL, NULL, "{well met, <player>|good to know, <player>|<player>, I will remember that|so you "
     "are <player>}.", NULL},
    {NAMED, 0, 0, 14, 0, "{do you remember my name|what was my name again|who am I}?", NULL, NULL,
     "{you are <player>|<player>, of course|your name is <player>|<player>, was it not}.", NULL},
    {0, NAMED, 0, 2, 0, "{do you know my name|who am I}?", NULL, NULL,
     "{no|I do not know}, you {never told me|have not told me}.", NULL},
    {MAIN | BOUGHT, 0, 0, 14, 1, "{how many coins|how much money} do I have {left|now}?", NULL,
    NULL,
     "{you have <purse> left|<purse>|<purse>, if I count right}.", NULL},
    {MAIN | BOUGHT, 0, 0, 12, 0, "{what did I just buy|what did I buy last}?", NULL, NULL,
     "{<last>|you bought <last>|<last>, for <paid>}.", NULL},
    {0, 0, 0, 9, 0, "{what do you know about <lore>?|tell me about <lore>.|what about <lore>?}",
     NULL, NULL, "{<lore>? |}<lore_is>.", NULL},
    {0, 0, 0, 9, 0, "{do you know anything about <more>?|let us talk about <more>.}", NULL, NULL,
     "{<more>? |}<more_is>.", NULL},
    {0, 0, 0, 8, 0, "{how do I get to <place>|where is <place>|do you know the way to <place>}?",
     NULL, NULL, "{to <place>? |}<way>.", NULL},
    {0, ANGER, 0, 8, 0, "<chat>?", NULL, NULL, "<chat_is>.", NULL},
    {0, ANGER, 0, 7, 0, "<talk>?", NULL, NULL, "<talk_is>.", NULL},
    {0, ANGER, 0, 5, 0, "{tell me a joke.|do you know a joke?|make me laugh.}", NULL, NULL,
     "<joke>.", NULL},
    {0, 0, 0, 6, 1, "<odd>?", NULL, NULL, "<no>", NULL},
    {MAIN | TWO, 0, 0, 9, 0, "{who is that over there|who else is here|who is <other>}?", NULL,
    NULL,
     "that is <other>, the <otrade>. <ohe> <oseen>.", NULL},
    {MAIN | TWO, 0, 0, 7, 0, "{how is <other> today|what about <other>}?", NULL, NULL,
     "{<other> is <omood> today|<omood>, as you can see}.", NULL},
    {0, ANGER, 0, 6, 1,
     "{you are a fine <trade>|I like it here|I heard only good things about you|you look well}.",
     NULL, praised, "<praise>", NULL},
    {0, ANGER, RUDE, 4, 1,
     "{this place stinks|you are a fool|what a miserable hole|you look like a goblin}.", insult,
     insulted, "{what did you say|how dare you|say that again|watch your mouth}!", NULL},
    {RUDE | ANGER, 0, 0, 40, 1, "{I am sorry|forgive me|I did not mean it|please forgive me}.",
    NULL,
     excused, "{very well|let us forget it|do not do it again|I accept that}.", NULL}};

static int topic_flags(const scene *s) {
    int flags = s->flags;
    flags |= s->npc == s->cast ? MAIN : SECOND;
    if (s->n_cast == 2) flags |= TWO;
    flags |= s->subject == (int)(s->npc - s->cast) ? SELF : HEARSAY;
    if (s->npc->mood == ANGRY) flags |= ANGER;
    else flags &= ~RUDE;
    return flags;
}

/* The next topic that fits, or NULL. */
static const topic *topic_next(scene *s) {
    int i, at, total = 0, flags = topic_flags(s), weights[N(topics)];
    for (i = 0; i < N(topics); i++) {
        const topic *t = &topics[i];
        int fits = (flags & t->need) == t->need && !(flags & t->avoid) && !(s->used >> i & 1);
        weights[i] = !fits ? 0 : t->need & s->fresh ? 4 * t->weight : t->weight;
        total += weights[i];
    }
    if (!total) return NULL;
    at = pick(s, total);
    for (i = 0; at >= weights[i]; i++) at -= weights[i];
    s->used |= (uint64_t)1 << i;
    return topics[i].prepare && !topics[i].prepare(s) ? NULL : &topics[i];
}

/* Whom the next words are for, and what stands for him or her. */
static void face(scene *s, int i) {
    person *p = &s->cast[i];
    s->npc = p;
    set(s, "npc", p->name);
    set(s, "trade", p->job->name);
    set(s, "does_i", p->job->does);
    setf(s, "a_trade", "%s %s", article(p->job->name), p->job->name);
}

static void exchange(scene *s) {
    int called = 0, tries = 0, before = s->flags;
    const topic *t = NULL;
    if (s->n_cast == 2 && pick(s, 3) == 0) {
        face(s, s->npc == s->cast);
        called = 1;
    }
    while (!t && tries++ < 8) t = topic_next(s);
    if (!t) return;
    begin(s, "Player");
    if (t->plain == 2) expand(s, called ? "you there, " : "", 1);
    else if (called || pick(s, 8) == 0) expand(s, "<npc>, ", 1);
    expand(s, t->ask, 1);
    finish(s);
    if (t->heard) t->heard(s);
    s->flags |= t->set;
    if (t->set & NAMED) set(s, "friend", "<player>");
    answer(s, t->reply, t->plain == 1);
    if (t->after) t->after(s);
    s->fresh = s->flags & ~before & ~NAMED;
}

/* ---- Facts ----------------------------------------------------------------------------------- */

static person cast_person(scene *s, int seller) {
    person p;
    p.female = pick(s, 2);
    p.name = p.female ? women[pick(s, N(women))] : men[pick(s, N(men))];
    p.mood = p.first_mood = pick(s, N_MOODS);
    p.job = seller ? &trades[pick(s, N_SELLERS)] : &trades[pick(s, N(trades))];
    return p;
}

static void set_place(scene *s) {
    static const char *const hellos[] = {"morning", "afternoon", "evening", "evening"};
    const weather *sky = &skies[pick(s, N(skies))];
    const place *p = &places[pick(s, N(places))];
    int at = pick(s, 4), i = pick(s, N(lore)), j = pick(s, N(lore) - 1);
    set(s, "tavern", taverns[pick(s, N(taverns))]);
    set(s, "time", hours[at]);
    set(s, "daytime", hellos[at]);
    set(s, "weather", sky->name);
    set(s, "remark", sky->remark);
    set(s, "sky", sky->reply);
    set(s, "day", days[pick(s, N(days))]);
    set(s, "place", p->name);
    set(s, "way", p->way);
    j += j >= i;
    set(s, "lore", lore[i][0]);
    set(s, "lore_is", lore[i][1]);
    set(s, "more", lore[j][0]);
    set(s, "more_is", lore[j][1]);
    i = pick(s, N(chats));
    j = pick(s, N(chats) - 1);
    j += j >= i;
    set(s, "chat", chats[i][0]);
    set(s, "chat_is", chats[i][1]);
    set(s, "talk", chats[j][0]);
    set(s, "talk_is", chats[j][1]);
    set(s, "joke", jokes[pick(s, N(jokes))]);
    set(s, "odd", odd[pick(s, N(odd))]);
    set(s, "player", players[pick(s, N(players))]);
    set(s, "friend", "{stranger|traveller|friend}");
    line(s, "Scene", "The <tavern>, <time>, <weather>.");
}

static void set_cast(scene *s) {
    char words[300];
    int i, j, start, step;
    s->n_cast = 1 + (pick(s, 5) < 2);
    s->cast[0] = cast_person(s, 1);
    do s->cast[1] = cast_person(s, 0);
    while (s->cast[1].name == s->cast[0].name || s->cast[1].job == s->cast[0].job);
    s->n_wares = 2 + pick(s, 3);
    start = pick(s, 7);
    step = 1 + pick(s, 6);
    format(words, sizeof words, "%s, %s. Sells ", s->cast[0].job->name,
           moods[s->cast[0].mood].name);
    for (i = 0; i < s->n_wares; i++) {
        const ware *x = s->wares[i] = &s->cast[0].job->wares[(start + i * step) % 7];
        size_t n = strlen(words);
        s->price[i] = x->low + pick(s, x->high - x->low + 1);
        format(words + n, sizeof words - n, "%s%s %d", i ? ", " : "", x->name, s->price[i]);
    }
    begin(s, s->cast[0].name);
    for (i = 0; words[i]; i++) put(s, words[i]);
    put(s, '.');
    put(s, '\n');
    set_list(s);
    set(s, "main", s->cast[0].name);
    if (s->n_cast < 2) return;
    set(s, "other", s->cast[1].name);
    set(s, "otrade", s->cast[1].job->name);
    set(s, "oseen", s->cast[1].job->seen);
    set(s, "ohe", s->cast[1].female ? "she" : "he");
    set(s, "omood", moods[s->cast[1].mood].name);
    begin(s, s->cast[1].name);
    for (j = 0; s->cast[1].job->name[j]; j++) put(s, s->cast[1].job->name[j]);
    expand(s, ", <omood>.\n", 1);
}

static void set_rumour(scene *s) {
    const verb *v = &verbs[pick(s, N(verbs))];
    person who;
    s->subject = s->n_cast == 2 && pick(s, 3) == 0 ? 1 : -1;
    if (s->subject == 1) who = s->cast[1];
    else do who = cast_person(s, 0);
        while (who.name == s->cast[0].name || who.name == s->cast[1].name);
    set(s, "rname", who.name);
    set(s, "rtrade", who.job->name);
    setf(s, "a_rtrade", "%s %s", article(who.job->name), who.job->name);
    set(s, "rseen", who.job->seen);
    set(s, "rhe", who.female ? "she" : "he");
    setf(s, "who", "%s the %s", who.name, who.job->name);
    set(s, "past", v->past);
    set(s, "base", v->base);
    set(s, "thing", v->things[pick(s, 12)]);
    set(s, "at", places[pick(s, N(places))].at);
    set(s, "when", whens[pick(s, N(whens))]);
    line(s, "Rumour", "<who> <past> <thing> <at> <when>.");
}

static void set_quest(scene *s) {
    const task *t = &tasks[pick(s, N(tasks))];
    const place *p = &places[pick(s, N(places))];
    int reward = 4 + pick(s, 17);
    if (pick(s, 5) < 2) return;
    s->flags |= QUEST;
    set(s, "qverb", t->verb);
    set(s, "qthing", t->things[pick(s, 10)]);
    set(s, "qat", t->from ? p->from : p->at);
    set(s, "qplace", p->name);
    set(s, "qway", p->way);
    set(s, "qwhy", t->why);
    setf(s, "reward", "%s", coins(reward));
    setf(s, "digits", "%d", reward);
    line(s, "Quest", "<qverb> <qthing> <qat>. Reward <digits>.");
}

/* Makes scene `number`; returns a hash of its facts. */
static uint64_t scene_make(scene *s, uint64_t seed, uint64_t number) {
    int turns;
    size_t i;
    uint64_t hash;
    memset(s, 0, sizeof *s);
    s->seed = seed;
    s->number = number;
    set_place(s);
    set_cast(s);
    set_rumour(s);
    set_quest(s);
    s->purse = 3 + pick(s, 22);
    setf(s, "purse", "%s", coins(s->purse));
    setf(s, "digits", "%d", s->purse);
    line(s, "Purse", "<digits>.");
    for (i = 0, hash = 0xcbf29ce484222325u; i < s->n; i++) /* FNV-1a */
        hash = (hash ^ (unsigned char)s->text[i]) * 0x100000001b3u;
    face(s, 0);
    if (pick(s, 8)) {
        line(s, "Player", "{good <daytime>|hello|hello there|greetings|well met|hey}[, <npc>].");
        answer(s, "<greet>", 1);
    }
    for (turns = 4 + pick(s, 6); turns > 0 && s->n < 690; turns--) exchange(s);
    if (pick(s, 6)) {
        line(s, "Player", "{goodbye|farewell|I have to go|until next time|see you}{, <npc>|}.");
        answer(s, "<bye>", 1);
    }
    return hash;
}

int main(int argc, char **argv) {
    static scene s;
    int i, n_scenes = 1000, held_out = 0;
    uint64_t seed = 1, number;
    const char *end = "";
    for (i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--scenes")) n_scenes = arg_int(argc, argv, &i, 1, 100000000);
        else if (!strcmp(argv[i], "--seed")) seed = arg_seed(argc, argv, &i);
        else if (!strcmp(argv[i], "--held-out")) held_out = 1;
        else if (!strcmp(argv[i], "--end")) end = arg_text(argc, argv, &i);
        else arg_fail("what is \"%s\"?", argv[i]);
    }
    for (number = 0; n_scenes > 0; number++) {
        if ((scene_make(&s, seed, number) % 20 == 0) != held_out) continue;
        fwrite(s.text, 1, s.n, stdout);
        say(stdout, "%s\n", end);
        n_scenes--;
    }
    if (fflush(stdout) || ferror(stdout)) {
        say(stderr, "tavern_corpus: the text cannot be written\n");
        return 1;
    }
    return 0;
}
