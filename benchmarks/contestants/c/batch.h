/* Purchases that one statement turns into orders: two columns in PostgreSQL's binary format. */
#ifndef BATCH_H
#define BATCH_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>

enum { BATCH_SIZE = 500, MAX_TEXT = 255 * 4 };

struct column {
    int rows;
    size_t length;
    char bytes[20 + BATCH_SIZE * (4 + MAX_TEXT)];
};

struct batch {
    struct column sale_ids, user_ids;
};

void batch_clear(struct batch *batch);

/* Adds the purchase in an event's body; false, with the batch as it was, where there is none. */
bool batch_add(struct batch *batch, const char *body, size_t length);

/* Prepares the statement that batch_write executes; exits where the server refuses it. */
void batch_prepare(PGconn *connection);

/* Writes orders and audit rows, committed when it returns; exits where that failed. */
void batch_write(PGconn *connection, struct batch *batch);

#endif
