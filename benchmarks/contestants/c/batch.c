#include "batch.h"

#include <arpa/inet.h>
#include <cjson/cJSON.h>
#include <err.h>
#include <stdint.h>
#include <string.h>

enum { UUID_OID = 2950, TEXT_OID = 25, UUID_BYTES = 16, UUID_LENGTH = 36 };

/* The rows are locked in one order everywhere, so that two processes cannot deadlock. */
static const char STATEMENT[] =
    "WITH written AS ("
    " INSERT INTO orders (id, sale_id, user_id)"
    " SELECT gen_random_uuid(), sale_id, user_id"
    " FROM unnest($1::uuid[], $2::text[]) AS event (sale_id, user_id)"
    " ORDER BY sale_id, user_id"
    " ON CONFLICT (sale_id, user_id) DO NOTHING RETURNING id, sale_id, user_id)"
    " INSERT INTO order_audit_trail (id, sale_id, user_id, event_type, metadata)"
    " SELECT gen_random_uuid(), sale_id, user_id, 'CONFIRMED',"
    " jsonb_build_object('orderId', id, 'processedAt', now()) FROM written";

static void put_int(char *at, int32_t value)
{
    value = htonl(value);
    memcpy(at, &value, sizeof value);
}

static void column_clear(struct column *column, int type)
{
    const int32_t header[] = {1, 0, type, 0, 1}; /* dimensions, nulls, type, rows, lower bound */
    column->rows = 0;
    column->length = sizeof header;
    for (size_t i = 0; i < sizeof header / sizeof *header; i++)
        put_int(column->bytes + 4 * i, header[i]);
}

static void column_add(struct column *column, const void *value, size_t length)
{
    put_int(column->bytes + column->length, length);
    memcpy(column->bytes + column->length + 4, value, length);
    column->length += 4 + length;
    put_int(column->bytes + 12, ++column->rows);
}

static int hex_digit(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    digit |= 0x20;
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

static bool parse_uuid(const char *text, unsigned char *uuid)
{
    if (strlen(text) != UUID_LENGTH)
        return false;
    for (int i = 0; i < UUID_BYTES; i++, text += 2) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            if (*text++ != '-')
                return false;
        int high = hex_digit(text[0]), low = hex_digit(text[1]);
        if (high < 0 || low < 0)
            return false;
        uuid[i] = high << 4 | low;
    }
    return true;
}

void batch_clear(struct batch *batch)
{
    column_clear(&batch->sale_ids, UUID_OID);
    column_clear(&batch->user_ids, TEXT_OID);
}

bool batch_add(struct batch *batch, const char *body, size_t length)
{
    cJSON *event = cJSON_ParseWithLength(body, length);
    const char *sale = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(event, "saleId"));
    const char *user = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(event, "userId"));
    unsigned char uuid[UUID_BYTES];
    bool good = sale && user && parse_uuid(sale, uuid) && *user && strlen(user) <= MAX_TEXT;
    if (good) {
        column_add(&batch->sale_ids, uuid, sizeof uuid);
        column_add(&batch->user_ids, user, strlen(user));
    }
    cJSON_Delete(event);
    return good;
}

void batch_prepare(PGconn *connection)
{
    PGresult *result = PQprepare(connection, "confirm", STATEMENT, 2, NULL);
    if (PQresultStatus(result) != PGRES_COMMAND_OK)
        errx(1, "%s", PQerrorMessage(connection));
    PQclear(result);
}

void batch_write(PGconn *connection, struct batch *batch)
{
    const char *values[] = {batch->sale_ids.bytes, batch->user_ids.bytes};
    const int lengths[] = {batch->sale_ids.length, batch->user_ids.length};
    const int formats[] = {1, 1};
    if (!batch->sale_ids.rows)
        return;
    PGresult *result = PQexecPrepared(connection, "confirm", 2, values, lengths, formats, 1);
    if (PQresultStatus(result) != PGRES_COMMAND_OK)
        errx(1, "%s", PQerrorMessage(connection));
    PQclear(result);
}
